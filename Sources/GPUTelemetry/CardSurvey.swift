import CDRM
import CNVML

/// Collects the fixed facts of cards from the kernel's files, libdrm, amdgpu and NVML. One survey serves all cards
/// of a machine, so that each library is asked once.
struct CardSurvey: Sendable {
    /// How long a card's driver, and NVML, may take to answer.
    static let driverDeadline = Duration.seconds(10)

    private let paths: SystemPaths
    private let nodes: [PCIAddress: DRMNodes]
    private let kfd: KFDTopology
    private let installed: InstalledRuntimes
    /// Loaded only when there is an NVIDIA card.
    private let nvml: Result<NVML, NVMLUnavailable>?

    init(_ paths: SystemPaths, hasNVIDIA: Bool) {
        self.paths = paths
        nodes = DRMNodes.all()
        kfd = KFDTopology(paths)
        installed = InstalledRuntimes(paths)
        guard hasNVIDIA else {
            nvml = nil
            return
        }
        let late = NVMLUnavailable(code: nil, reason: "it does not answer within \(Self.driverDeadline)")
        nvml = Bounded.call(within: Self.driverDeadline) { Self.loadNVML() } ?? .failure(late)
    }

    private static func loadNVML() -> Result<NVML, NVMLUnavailable> {
        do {
            return .success(try NVML())
        } catch {
            return .failure(error)
        }
    }

    /// The facts of one card. A driver that does not answer in time leaves it degraded, with what sysfs tells.
    func card(_ device: PCIDisplayDevice, vendor: CardVendor) -> Card {
        let seen = sysfsFacts(device, vendor: vendor)
        let asked = Bounded.call(within: Self.driverDeadline) { addingDriverFacts(seen) }
        if let asked { return asked }
        var card = seen
        card.degradations.append("its driver does not answer within \(Self.driverDeadline)")
        return card
    }

    /// What sysfs tells without asking the driver.
    private func sysfsFacts(_ device: PCIDisplayDevice, vendor: CardVendor) -> Card {
        let directory = paths.pciDevice(device.address)
        return Card(
            number: 0,
            address: device.address,
            vendor: vendor,
            model: Self.model(device),
            pciID: "\(hex(device.vendorID, 4)):\(hex(device.deviceID, 4))",
            uuid: nil,
            vram: nil,
            driver: SysfsFiles.linkName("\(directory)/driver"),
            driverVersion: SysfsFiles.line("\(directory)/driver/module/version"),
            nodes: nodes[device.address] ?? DRMNodes(primary: nil, render: nil),
            link: Card.Link(
                width: Self.width("\(directory)/current_link_width"),
                maxWidth: Self.width("\(directory)/max_link_width"),
                speed: PCIeSpeed.read("\(directory)/current_link_speed"),
                maxSpeed: PCIeSpeed.read("\(directory)/max_link_speed")
            ),
            runtimes: [],
            temperatureLimits: Card.TemperatureLimits(),
            isDisplay: SysfsFiles.integer("\(directory)/boot_vga") == 1,
            // Discrete Intel cards sit behind a bridge, the processor's own graphics on bus 0.
            isIntegrated: vendor == .intel && device.address.bus == 0,
            degradations: []
        )
    }

    private func addingDriverFacts(_ seen: Card) -> Card {
        var card = seen
        let directory = paths.pciDevice(card.address)
        let isAsleep = RuntimePower(directory).isAsleep
        if isAsleep {
            card.degradations.append("asleep (runtime power management): not woken for facts that need it awake")
        } else {
            card.uuid = SysfsFiles.line("\(directory)/unique_id")
            card.vram = SysfsFiles.integer("\(directory)/mem_info_vram_total").flatMap { UInt64(exactly: $0) }
            card.temperatureLimits = Self.hwmonLimits(directory)
        }
        var hasNVML = false
        switch card.vendor {
        case .amd: addAMD(&card, isAsleep: isAsleep)
        case .nvidia: hasNVML = addNVIDIA(&card, isAsleep: isAsleep)
        case .intel: addDriverVersion(&card, isAsleep: isAsleep)
        }
        judgeDriver(&card)
        card.runtimes = installed.available(
            for: card.vendor,
            driver: card.driver,
            hasRenderNode: card.nodes.render != nil,
            hasKFDNode: card.kfdRank != nil,
            hasNVML: hasNVML
        )
        return card
    }

    // MARK: drivers

    private func addAMD(_ card: inout Card, isAsleep: Bool) {
        card.kfdRank = kfd.rank(ofRenderMinor: card.nodes.renderMinor)
        addDriverVersion(&card, isAsleep: isAsleep)
        guard card.driver == "amdgpu", !isAsleep, let render = card.nodes.render else { return }
        do {
            let device = try AMDGPUDevice(renderNode: render)
            let facts = try device.facts()
            if let name = facts.name { card.model = name.hasPrefix("AMD") ? name : "AMD \(name)" }
            card.isIntegrated = facts.isIntegrated
            card.maxCoreClock = facts.maxCoreClock > 0 ? facts.maxCoreClock : nil
            if card.vram == nil { card.vram = try device.vram().total }
            if try device.value(CDRM_AMDGPU_ACCEL_WORKING) == 0 {
                card.degradations.append("amdgpu says that acceleration does not work")
            }
        } catch {
            card.degradations.append("amdgpu does not answer on \(render): \(error)")
        }
    }

    private func addDriverVersion(_ card: inout Card, isAsleep: Bool) {
        guard !isAsleep, let node = card.nodes.render ?? card.nodes.primary else { return }
        do {
            card.driverVersion = try DRMNodes.driver(of: node).version
        } catch {
            card.degradations.append("\(node) does not answer: \(error)")
        }
    }

    /// Adds what NVML knows; false when it cannot be used for this card.
    private func addNVIDIA(_ card: inout Card, isAsleep: Bool) -> Bool {
        guard card.driver == "nvidia", let nvml else { return false }
        // The kernel module tells these even when NVML refuses: without them a pin by UUID would not find its card.
        let module = NVIDIAModuleInformation(paths, card.address)
        card.uuid = module.uuid
        card.nvidiaMinor = module.minor
        let library: NVML
        switch nvml {
        case .success(let loaded): library = loaded
        case .failure(let failure):
            card.degradations.append("NVML cannot be used: \(failure)")
            return false
        }
        card.driverVersion = library.driverVersion() ?? card.driverVersion
        guard !isAsleep else { return true }
        do {
            let device = try library.device(at: card.address)
            card.model = Self.known { () throws(SensorFault) in try device.text(CNVML_NAME) } ?? card.model
            card.uuid = Self.known { () throws(SensorFault) in try device.text(CNVML_UUID) } ?? card.uuid
            card.vram = Self.known { () throws(SensorFault) in try device.vram().total } ?? card.vram
            let minor = Self.known { () throws(SensorFault) in try device.value(CNVML_MINOR) }
            card.nvidiaMinor = minor.flatMap { Int(exactly: $0) } ?? card.nvidiaMinor
            card.temperatureLimits = Card.TemperatureLimits(
                critical: Self.limit(device, CNVML_SLOWDOWN_TEMPERATURE),
                emergency: Self.limit(device, CNVML_SHUTDOWN_TEMPERATURE)
            )
            if card.uuid == nil { card.degradations.append("NVML does not tell its UUID: CUDA jobs cannot be bound") }
            return card.uuid != nil
        } catch {
            card.degradations.append("NVML does not know it: \(error)")
            return false
        }
    }

    private func judgeDriver(_ card: inout Card) {
        switch card.driver {
        case nil: card.degradations.append("no kernel driver is bound to it")
        case "vfio-pci": card.degradations.append("bound to vfio-pci, for a virtual machine: no job can use it")
        case "nouveau": card.degradations.append("driver nouveau: no CUDA, few sensors; NVIDIA's driver is wanted")
        case "radeon": card.degradations.append("driver radeon: few sensors; amdgpu is wanted")
        default:
            if card.nodes.render == nil && card.vendor != .nvidia {
                card.degradations.append("it has no render node")
            }
        }
    }

    // MARK: values

    /// A fact that a card may lack; the readings tell about faults.
    private static func known<Value>(_ ask: () throws(SensorFault) -> Value) -> Value? {
        do {
            return try ask()
        } catch {
            return nil
        }
    }

    private static func limit(_ device: NVMLDevice, _ which: cnvml_value) -> Double? {
        known { () throws(SensorFault) in try device.value(which) }
            .map { Double($0) }.flatMap { Plausible.temperature.contains($0) ? $0 : nil }
    }

    private static func width(_ path: String) -> Int? {
        SysfsFiles.integer(path).flatMap { (1...32).contains($0) ? Int($0) : nil }
    }

    /// `temp1_crit` and `temp1_emergency`. `temp1_crit_hyst` is not used: amdgpu reports garbage there.
    private static func hwmonLimits(_ directory: String) -> Card.TemperatureLimits {
        guard let hwmon = Hwmon.directory(of: directory) else { return Card.TemperatureLimits() }
        func limit(_ name: String) -> Double? {
            SysfsFiles.integer("\(hwmon)/\(name)").map { Double($0) / 1000 }
                .flatMap { Plausible.temperature.contains($0) ? $0 : nil }
        }
        return Card.TemperatureLimits(critical: limit("temp1_crit"), emergency: limit("temp1_emergency"))
    }

    private static func model(_ device: PCIDisplayDevice) -> String {
        let ids = "\(hex(device.vendorID, 4)):\(hex(device.deviceID, 4))"
        guard !device.deviceName.isEmpty else { return ids }
        return device.vendorName.isEmpty ? device.deviceName : "\(device.vendorName) \(device.deviceName)"
    }
}
