/// A graphics card of this machine: what does not change while it is there.
package struct Card: Sendable, Equatable {
    /// The N of `gpu-worker@N`.
    package var number: Int
    package var address: PCIAddress
    package var vendor: CardVendor
    /// "AMD Radeon RX 580"; the PCI ids when nothing knows a name.
    package var model: String
    /// The ids on the PCI bus, "1002:67df".
    package var pciID: String
    /// NVIDIA's UUID, or AMD's unique id where the chip has one.
    package var uuid: String?
    /// Bytes.
    package var vram: UInt64?
    /// The kernel driver, nil when none is bound.
    package var driver: String?
    package var driverVersion: String?
    package var nodes: DRMNodes
    package var link: Link
    /// What jobs can be written in.
    package var runtimes: [Runtime]
    package var temperatureLimits: TemperatureLimits
    /// The rank for ROCR_VISIBLE_DEVICES among the nodes of KFD that this process may use; nil without a KFD node.
    package var kfdRank: Int?
    /// The N of `/dev/nvidiaN`.
    package var nvidiaMinor: Int?
    /// The highest core clock in Hz, where the driver tells.
    package var maxCoreClock: Double?
    /// The system's screen hangs on it.
    package var isDisplay: Bool
    /// It shares the processor's memory.
    package var isIntegrated: Bool
    /// What is wrong with it, for a person; empty for a card in order.
    package var degradations: [String]

    /// The PCI Express link.
    package struct Link: Sendable, Equatable {
        /// Lanes in use; mining risers have 1.
        package var width: Int?
        /// Lanes that card and slot could use.
        package var maxWidth: Int?
        /// Giga-transfers per second of one lane; low while the card idles.
        package var speed: Double?
        package var maxSpeed: Double?

        package init(width: Int? = nil, maxWidth: Int? = nil, speed: Double? = nil, maxSpeed: Double? = nil) {
            self.width = width
            self.maxWidth = maxWidth
            self.speed = speed
            self.maxSpeed = maxSpeed
        }
    }

    /// Degrees Celsius at which the card protects itself.
    package struct TemperatureLimits: Sendable, Equatable {
        /// AMD: crossing it makes the kernel power the host off. NVIDIA: the card slows itself down.
        package var critical: Double?
        /// The card powers itself off.
        package var emergency: Double?

        package init(critical: Double? = nil, emergency: Double? = nil) {
            self.critical = critical
            self.emergency = emergency
        }
    }

    /// A way to compute on a card.
    package enum Runtime: String, Sendable, CaseIterable {
        case cuda
        case rocm
        case opencl
        case vulkan
    }
}

/// A display controller that is no card of the pool.
package struct LeftOutDevice: Sendable, Equatable {
    package let address: PCIAddress
    package let model: String
    /// Why, for a person.
    package let reason: String
}
