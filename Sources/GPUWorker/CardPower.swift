import GPUTelemetry
import Synchronization
import TaskRunner

/// Sets the power of a card as the configuration wants it, and puts back what it was.
///
/// What it was is on the disk before anything is changed, so that a next life puts it back when this one is killed.
final class CardPower: Sendable {
    private let control: PowerControl
    private let memory: SharedCardMemory
    private let state = Mutex(State())

    private struct State {
        /// What was last asked for, once that needs no further try.
        var settled: PowerSettings?
        /// What was told to people since it was last otherwise.
        var told: Set<String> = []
    }

    init(_ control: PowerControl, memory: SharedCardMemory) {
        self.control = control
        self.memory = memory
    }

    /// Sets what is wanted, and puts back what is not wanted any more. Does nothing when that is so already; what
    /// failed because the driver was busy is tried again at the next call. Blocks.
    /// - Returns: what a person should know and was not told yet.
    func apply(_ wanted: PowerSettings) -> [String] {
        guard state.withLock({ $0.settled != wanted }) else { return [] }
        let cap = put(wanted.cap, \.cap, read: control.cap, write: setCap)
        let level = put(wanted.level, \.level, read: control.level) { (level: String) throws(SensorFault) in
            try control.setLevel(level)
            return nil
        }
        return state.withLock { state in
            let isSettled = !cap.isToBeRepeated && !level.isToBeRepeated
            state.settled = isSettled ? wanted : nil
            let new = [cap.notice.map { "power cap: \($0)" }, level.notice.map { "performance level: \($0)" }]
                .compactMap { $0 }.filter { !state.told.contains($0) }
            state.told = isSettled ? [] : state.told.union(new)
            return new
        }
    }

    /// The card may have lost its settings: the next call sets them again.
    func doubt() { state.withLock { $0.settled = nil } }

    private struct Step {
        var notice: String?
        /// The driver was busy, or in reset.
        var isToBeRepeated = false
    }

    private func put<Value: Equatable>(
        _ wanted: Value?,
        _ kept: WritableKeyPath<PowerSettings, Value?>,
        read: () throws(SensorFault) -> Value,
        write: (Value) throws(SensorFault) -> String?
    ) -> Step {
        do {
            if let wanted {
                if memory.original[keyPath: kept] == nil { try memory.keep(kept, try read()) }
                return Step(notice: try write(wanted))
            }
            guard let before = memory.original[keyPath: kept] else { return Step() }
            _ = try write(before)
            try memory.keep(kept, nil)
            return Step(notice: "put back to \(before)")
        } catch let fault as SensorFault {
            return Step(notice: Self.words(for: fault), isToBeRepeated: fault.isTransient)
        } catch {
            return Step(notice: "left as it is, since what it was cannot be kept: \(error)")
        }
    }

    private func setCap(_ watts: Double) throws(SensorFault) -> String? {
        let set = try control.setCap(watts)
        return abs(set - watts) < 0.5 ? nil : "\(watts) W is beyond what the card takes; \(set) W is set"
    }

    private static func words(for fault: SensorFault) -> String {
        if fault == .unsupported { return "this card has none that can be set" }
        let help = fault.isDenied ? "; that takes root, or a rule that lets this worker write it" : ""
        return "not changed: \(fault)\(help)"
    }
}

/// The memory of a card for those who share it.
final class SharedCardMemory: Sendable {
    private let memory: Mutex<CardMemory>

    init(_ memory: CardMemory) { self.memory = Mutex(memory) }

    var original: PowerSettings { memory.withLock { $0.original } }

    /// Keeps what a setting was; nil: nothing of ours is to be put back. Blocks on the disk.
    func keep<Value>(_ setting: WritableKeyPath<PowerSettings, Value?>, _ value: Value?) throws(TaskRunnerError) {
        try memory.withLock { memory throws(TaskRunnerError) in
            var original = memory.original
            original[keyPath: setting] = value
            try memory.remember(original: original)
        }
    }

    var linkBaseline: Int? { memory.withLock { $0.linkBaseline } }

    /// Blocks on the disk.
    func keep(linkBaseline: Int?) throws(TaskRunnerError) {
        try memory.withLock { memory throws(TaskRunnerError) in try memory.remember(linkBaseline: linkBaseline) }
    }
}
