import Glibc
import ServiceSupport

/// The graphics cards of this machine that can compute, as the PCI bus knows them.
enum InstalledCards {
    /// AMD and NVIDIA display controllers; 0 where there is no PCI bus to look at.
    static func count(devices: String = "/sys/bus/pci/devices") -> Int {
        guard let directory = unsafe opendir(devices) else { return 0 }
        defer { unsafe closedir(directory) }
        var count = 0
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if isCard("\(devices)/\(name)") { count += 1 }
        }
        return count
    }

    private static func isCard(_ device: String) -> Bool {
        // Class 0x03: display controllers. Vendors: AMD 0x1002, NVIDIA 0x10de (the PCI ID repository).
        guard let vendor = text(device + "/vendor"), ["0x1002", "0x10de"].contains(vendor) else { return false }
        return text(device + "/class")?.hasPrefix("0x03") ?? false
    }

    private static func text(_ file: String) -> String? {
        do {
            let bytes = try FileContents.read(file, limit: 256)
            return String(decoding: bytes.prefix { $0 > 0x20 }, as: UTF8.self)
        } catch {
            return nil
        }
    }
}
