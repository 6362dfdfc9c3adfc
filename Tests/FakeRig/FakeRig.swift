import Foundation

/// A made-up machine with graphics cards: a tree of sysfs and device files, and two libraries that make libpci,
/// libdrm, amdgpu and NVML take it for real. The cards are not real; nothing computes on them, and their names say so.
///
/// Programs see it when they are started with ``environment``. Attributes, faults and NVML's answers may change
/// while they run.
package final class FakeRig {
    package let root: URL
    private let libraries: FakeLibraries
    private let nvmlLibrary: FakeLibraries.NVML

    /// - Parameter nvml: which release of NVML is installed.
    package init(_ cards: [FakeCard], nvml: FakeLibraries.NVML = .current) throws {
        root = try Self.temporaryDirectory("rig")
        libraries = try FakeLibraries.built()
        nvmlLibrary = nvml
        for directory in [
            "sys/bus/pci/devices", "sys/class/drm", "sys/class/hwmon", "sys/dev/char", "dev/dri", "dev/.node",
        ] {
            try makeDirectory(directory)
        }
        // In an order of its own: neither that of the addresses nor that of the numbers.
        for card in cards.sorted(by: { $0.hwmonNumber < $1.hwmonNumber }) { try add(card) }
        try addKFD(cards)
    }

    deinit {
        do {
            try FileManager.default.removeItem(at: root)
        } catch {
            print("the made-up machine in \(root.path) could not be removed: \(error)")
        }
    }

    /// What a program needs in its environment to see this machine and no other.
    package var environment: [String: String] {
        var environment = [
            "UMOCKDEV_DIR": root.path,
            "LD_PRELOAD": libraries.preloaded,
            "FAKE_NVML_DIR": root.appending(path: "nvml").path,
            "ROOT": root.path,
        ]
        environment["LD_LIBRARY_PATH"] = libraries.directory(of: nvmlLibrary)?.path
        return environment
    }

    // MARK: what changes

    /// Writes an attribute of a card's PCI device ("gpu_busy_percent", "hwmon/temp1_input").
    package func set(_ card: FakeCard, _ attribute: String, _ value: String) throws {
        try write("\(device(card))/\(resolved(card, attribute))", value)
    }

    package func remove(_ card: FakeCard, _ attribute: String) throws {
        try FileManager.default.removeItem(at: root.appending(path: "\(device(card))/\(resolved(card, attribute))"))
    }

    /// Makes reads of an attribute fail ("errno 5") or slow ("delay 3000"); nil ends that.
    package func fault(_ card: FakeCard, _ attribute: String, _ fault: String?) throws {
        try change("fault/\(device(card))/\(resolved(card, attribute))", fault)
    }

    /// Makes writes to an attribute fail ("errno 13"); nil ends that.
    package func writeFault(_ card: FakeCard, _ attribute: String, _ fault: String?) throws {
        try change("write-fault/\(device(card))/\(resolved(card, attribute))", fault)
    }

    /// Sets what the amdgpu driver answers: `errno`, `vram_lost`, `accel_working`, …
    package func answer(_ card: FakeCard, _ key: String, _ value: String?) throws {
        try change("ioctl/renderD\(card.renderMinor)/\(key)", value)
    }

    /// Sets what NVML answers for a card, or of itself: `temperature`, `return`, `xid`, …
    package func nvml(_ card: FakeCard?, _ key: String, _ value: String?) throws {
        try change("nvml/" + (card.map { "\($0.address)/" } ?? "") + key, value)
    }

    /// Pulls the card out.
    package func pull(_ card: FakeCard) throws {
        try FileManager.default.removeItem(at: root.appending(path: "sys/bus/pci/devices/\(card.address)"))
        try FileManager.default.removeItem(at: root.appending(path: device(card)))
    }

    /// Whether the card is there: false once it was pulled.
    package func has(_ card: FakeCard) -> Bool {
        FileManager.default.fileExists(atPath: root.appending(path: device(card)).path)
    }

    /// Installs a file of the made-up machine, such as "etc/OpenCL/vendors/nvidia.icd".
    package func install(_ path: String, _ content: String) throws { try write(path, content) }

    package func path(_ card: FakeCard, _ attribute: String) -> String {
        root.appending(path: "\(device(card))/\(resolved(card, attribute))").path
    }

    // MARK: building

    private func device(_ card: FakeCard) -> String { "sys/devices/pci0000:00/\(card.address)" }

    /// "hwmon/x" is in the directory with the card's number.
    private func resolved(_ card: FakeCard, _ attribute: String) -> String {
        attribute.hasPrefix("hwmon/") ? "hwmon/hwmon\(card.hwmonNumber)/\(attribute.dropFirst(6))" : attribute
    }

    private func add(_ card: FakeCard) throws {
        let device = device(card)
        let (vendor, model) = card.ids
        let config = Self.configSpace(vendor: vendor, device: model)
        try makeDirectory("\(device)/power")
        for (name, value) in [
            ("vendor", "0x\(String(vendor, radix: 16))"), ("device", "0x\(String(model, radix: 16))"),
            ("class", "0x030000"), ("irq", "30"), ("revision", "0xe7"), ("subsystem_vendor", "0x1da2"),
            ("subsystem_device", "0xe353"), ("numa_node", "-1"), ("boot_vga", card.kind == .intel ? "1" : "0"),
            ("power/runtime_status", "active"), ("current_link_speed", "8.0 GT/s PCIe"),
            ("max_link_speed", "8.0 GT/s PCIe"), ("current_link_width", "1"), ("max_link_width", "16"),
            (
                "resource",
                Array(repeating: "0x0000000000000000 0x0000000000000000 0x0000000000000000", count: 13)
                    .joined(separator: "\n")
            ),
            ("uevent", "PCI_CLASS=30000\nPCI_SLOT_NAME=\(card.address)"),
        ] {
            try write("\(device)/\(name)", value)
        }
        try config.write(to: root.appending(path: "\(device)/config"))
        try link("\(device)/subsystem", to: "../../../bus/pci")
        try link("sys/bus/pci/devices/\(card.address)", to: "../../../devices/pci0000:00/\(card.address)")
        if let driver = card.driver {
            try makeDirectory("sys/bus/pci/drivers/\(driver)")
            try link("\(device)/driver", to: "../../../bus/pci/drivers/\(driver)")
        }
        switch card.driver {
        case "amdgpu", "i915":
            try addNodes(card)
            if card.kind == .rx580 { try addAMD(card) }
        case "nvidia": try addNVIDIA(card)
        default: break
        }
    }

    private func addNodes(_ card: FakeCard) throws {
        for (name, minor) in [
            ("card\(card.cardNumber)", card.cardNumber), ("renderD\(card.renderMinor)", card.renderMinor),
        ] {
            let node = "\(device(card))/drm/\(name)"
            try makeDirectory(node)
            try write("\(node)/dev", "226:\(minor)")
            try write("\(node)/uevent", "MAJOR=226\nMINOR=\(minor)\nDEVNAME=dri/\(name)\nDEVTYPE=drm_minor")
            try link("\(node)/device", to: "../../../\(card.address)")
            try link("\(node)/subsystem", to: "../../../../../class/drm")
            try link("sys/class/drm/\(name)", to: "../../devices/pci0000:00/\(card.address)/drm/\(name)")
            try link("sys/dev/char/226:\(minor)", to: "../../devices/pci0000:00/\(card.address)/drm/\(name)")
            try write("dev/dri/\(name)", "")
            try link("dev/.node/dri_\(name)", to: "226:\(minor)")
        }
    }

    /// The attributes of an RX 580 under a recent kernel: no power1_average, no gpu_metrics, no unique_id.
    private func addAMD(_ card: FakeCard) throws {
        for (name, value) in [
            ("gpu_busy_percent", "42"), ("mem_info_vram_total", "8589934592"), ("mem_info_vram_used", "1234567168"),
            ("hwmon/name", "amdgpu"), ("hwmon/temp1_input", "67000"), ("hwmon/temp1_crit", "94000"),
            ("hwmon/temp1_crit_hyst", "-273150"), ("hwmon/power1_input", "113117000"),
            ("hwmon/power1_cap", "145000000"), ("hwmon/power1_cap_min", "0"),
            ("hwmon/power1_cap_max", "217000000"), ("power_dpm_force_performance_level", "auto"),
            ("hwmon/fan1_input", "1450"), ("hwmon/pwm1", "102"),
            ("hwmon/pwm1_max", "255"), ("hwmon/freq1_input", "1366000000"), ("hwmon/freq2_input", "2000000000"),
        ] {
            try set(card, name, value)
        }
    }

    private func addNVIDIA(_ card: FakeCard) throws {
        let (name, vram) = card.kind == .gtx1660 ? ("GTX 1660", 6) : ("GTX 1060 6GB", 6)
        for (key, value) in [
            ("name", "NVIDIA GeForce \(name) (fake)"), ("uuid", card.uuid), ("minor", "\(card.cardNumber)"),
            ("busy", "37"), ("temperature", "61"), ("shutdown", "98"), ("slowdown", "95"), ("power", "71000"),
            ("power_cap", "120000"), ("power_min", "70000"), ("power_max", "130000"), ("fan", "44"),
            ("core_clock", "1830"), ("memory_clock", "4001"), ("throttle", "0"), ("link_width", "1"),
            ("max_link_width", "16"), ("link_generation", "3"), ("vram_total", "\(vram << 30)"),
            ("vram_used", "536870912"),
        ] {
            try nvml(card, key, value)
        }
    }

    private func addKFD(_ cards: [FakeCard]) throws {
        let offered = cards.filter(\.hasKFD).sorted { $0.address < $1.address }
        guard !offered.isEmpty else { return }
        try write("dev/kfd", "")
        let minors = [0] + offered.map(\.renderMinor)
        for (number, minor) in minors.enumerated() {
            let properties =
                "cpu_cores_count \(minor == 0 ? 2 : 0)\nsimd_count \(minor == 0 ? 0 : 144)\ndrm_render_minor \(minor)"
            try write("sys/class/kfd/kfd/topology/nodes/\(number)/properties", properties)
        }
    }

    /// The standard header of a display controller's configuration space.
    private static func configSpace(vendor: Int, device: Int) -> Data {
        var bytes = [UInt8](repeating: 0, count: 256)
        for (offset, value) in [(0, vendor), (2, device)] {
            bytes[offset] = UInt8(value & 0xff)
            bytes[offset + 1] = UInt8(value >> 8)
        }
        bytes[4] = 0x07
        bytes[8] = 0xe7
        bytes[11] = 0x03
        return Data(bytes)
    }

    // MARK: files

    static func temporaryDirectory(_ name: String) throws -> URL {
        let url = URL(filePath: "/tmp").appending(path: "maestro-\(name)-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        return url
    }

    private func makeDirectory(_ path: String) throws {
        try FileManager.default.createDirectory(at: root.appending(path: path), withIntermediateDirectories: true)
    }

    private func link(_ path: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(atPath: root.appending(path: path).path, withDestinationPath: target)
    }

    /// Writes in place, as the kernel does: a program that has the file open sees the new content.
    private func write(_ path: String, _ content: String) throws {
        let url = root.appending(path: path)
        let bytes = Data((content + "\n").utf8)
        guard FileManager.default.fileExists(atPath: url.path) else {
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(),
                withIntermediateDirectories: true
            )
            try bytes.write(to: url)
            return
        }
        let file = try FileHandle(forWritingTo: url)
        try file.write(contentsOf: bytes)
        try file.truncate(atOffset: UInt64(bytes.count))
        try file.close()
    }

    private func change(_ path: String, _ content: String?) throws {
        if let content { return try write(path, content) }
        try FileManager.default.removeItem(at: root.appending(path: path))
    }
}
