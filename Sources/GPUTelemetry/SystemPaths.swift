/// Where the kernel shows its devices. Tests look at a made-up machine.
package struct SystemPaths: Sendable {
    package var sys: String
    package var dev: String
    package var proc: String
    /// The root of everything that is installed: `/etc`, `/usr`.
    package var root: String

    package init(sys: String = "/sys", dev: String = "/dev", proc: String = "/proc", root: String = "") {
        self.sys = sys
        self.dev = dev
        self.proc = proc
        self.root = root
    }

    /// This machine.
    package static let machine = SystemPaths()

    /// The directory of a PCI device.
    func pciDevice(_ address: PCIAddress) -> String { "\(sys)/bus/pci/devices/\(address)" }
}
