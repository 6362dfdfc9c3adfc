import CDRM
import CNVML
import Glibc

/// Looks for signs that a card is sick. The only one of a card's sensors that opens its driver.
struct SignsSensor: Sendable {
    private let card: Card
    private let paths: SystemPaths
    private let attachment: CardAttachment
    private let config: AttributeFile
    private let linkWidth: AttributeFile

    init(card: Card, paths: SystemPaths, attachment: CardAttachment) {
        self.card = card
        self.paths = paths
        self.attachment = attachment
        config = AttributeFile("\(paths.pciDevice(card.address))/config")
        linkWidth = AttributeFile("\(paths.pciDevice(card.address))/current_link_width")
    }

    func signs() -> CardSigns {
        var signs = CardSigns()
        signs.isPresent = SysfsFiles.exists(paths.pciDevice(card.address))
        guard signs.isPresent else { return signs }
        readConfig(&signs)
        signs.linkWidth = Self.known { () throws(SensorFault) in try linkWidth.integer() }.map { Int(clamping: $0) }
        if let name = card.nodes.primary?.split(separator: "/").last {
            let dump = "\(paths.pciDevice(card.address))/drm/\(name)/device/devcoredump/data"
            signs.hasCoreDump = SysfsFiles.exists(dump)
        }
        askDriver(&signs)
        return signs
    }

    /// The first two bytes of the configuration space: all ones from a card that fell off the bus.
    private func readConfig(_ signs: inout CardSigns) {
        guard let bytes = Self.known({ () throws(SensorFault) in try config.contents() }) else { return }
        guard bytes.count >= 2 else {
            signs.isConfigEmpty = true
            return
        }
        signs.configVendor = UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }

    private func askDriver(_ signs: inout CardSigns) {
        do {
            try attachment.attach()
            if attachment.usesNVML {
                signs.xids = attachment.takeXIDs()
                // The cheapest call that goes to the card.
                _ = try attachment.nvmlDevice().value(CNVML_LINK_WIDTH)
            } else if let amdgpu = attachment.amdgpu {
                signs.vramLostCounter = try amdgpu.value(CDRM_AMDGPU_VRAM_LOST_COUNTER)
                signs.isAccelerationWorking = try amdgpu.value(CDRM_AMDGPU_ACCEL_WORKING) != 0
            }
        } catch .nvml(let code, _) {
            signs.nvmlCode = code
        } catch .system(let code) {
            signs.driverError = code
        } catch {
            // A driver that lacks the call is no sign of anything.
        }
    }

    private static func known<Value>(_ read: () throws(SensorFault) -> Value) -> Value? {
        do {
            return try read()
        } catch {
            return nil
        }
    }
}
