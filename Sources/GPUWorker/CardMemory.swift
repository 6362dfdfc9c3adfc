import GPUTelemetry
import TaskRunner
import WireJSON

/// What a worker has to know of its card from one life to the next, in `LOG_ROOT/gpu<N>/card.json`: the width of its
/// link when it was well, and what its power settings were before somebody's configuration changed them.
///
/// Every change is on the disk before it is used. What was kept for another card is not this one's.
struct CardMemory: Sendable {
    private(set) var linkBaseline: Int?
    /// As the card was when this machine had booted; empty while nothing is changed.
    private(set) var original = PowerSettings()

    /// Watts that may have been a card's cap.
    private static let caps = 1.0...2000.0

    private let file: StateFile
    private let address: PCIAddress
    /// The settings of a card do not outlive the machine's boot.
    private let bootID: String

    /// - Returns: the memory, and what a person should know of a file that could not be used.
    static func load(_ file: StateFile, of address: PCIAddress, bootID: String) -> (CardMemory, notice: String?) {
        var memory = CardMemory(file: file, address: address, bootID: bootID)
        do throws(TaskRunnerError) {
            guard let bytes = try file.read() else { return (memory, nil) }
            do throws(JSONError) {
                memory.take(try JSON(parsing: bytes))
                return (memory, nil)
            } catch {
                return (memory, "\(file.directory)/\(file.name) is \(error); what it said of the card is lost")
            }
        } catch {
            return (memory, error.description)
        }
    }

    private init(file: StateFile, address: PCIAddress, bootID: String) {
        self.file = file
        self.address = address
        self.bootID = bootID
    }

    private mutating func take(_ json: JSON) {
        guard json["pci"]?.stringValue == address.description else { return }
        linkBaseline = json["link_width"]?.intValue.flatMap { (1...32).contains($0) ? Int($0) : nil }
        guard let kept = json["original"], kept["boot_id"]?.stringValue == bootID else { return }
        original = PowerSettings(
            cap: kept["power_cap_w"]?.doubleValue.flatMap { Self.caps.contains($0) ? $0 : nil },
            level: kept["perf_level"]?.stringValue
        )
    }

    mutating func remember(linkBaseline: Int?) throws(TaskRunnerError) {
        try change { $0.linkBaseline = linkBaseline }
    }

    mutating func remember(original: PowerSettings) throws(TaskRunnerError) {
        try change { $0.original = original }
    }

    private mutating func change(_ body: (inout CardMemory) -> Void) throws(TaskRunnerError) {
        var changed = self
        body(&changed)
        guard changed.linkBaseline != linkBaseline || changed.original != original else { return }
        try file.write(changed.encoded())
        self = changed
    }

    private func encoded() -> [UInt8] {
        var object: JSONObject = ["pci": .string(address.description)]
        object["link_width"] = linkBaseline.map { .int($0) }
        if !original.isEmpty {
            var kept: JSONObject = ["boot_id": .string(bootID)]
            kept["power_cap_w"] = original.cap.map { .double($0) }
            kept["perf_level"] = original.level.map { .string($0) }
            object["original"] = .object(kept)
        }
        return JSON.object(object).encoded()
    }
}
