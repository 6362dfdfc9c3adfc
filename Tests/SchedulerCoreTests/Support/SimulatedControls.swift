import JobModel
import SchedulerCore

/// The control records of the cards: one for each, moved by compare-and-set.
final class SimulatedControls {
    private var lastSequence: UInt64 = 0
    private var current: [GPUID: ControlRevision] = [:]

    subscript(gpu: GPUID) -> CardControl? { current[gpu]?.record }

    /// As they stand, in the order in which they were written.
    var revisions: [ControlRevision] { current.values.sorted { $0.sequence < $1.sequence } }

    func revision(_ gpu: GPUID) -> ControlRevision? { current[gpu] }

    /// Stores the record if its subject stands at `expected`, 0 meaning that there is none.
    func write(_ record: CardControl, expected: UInt64, at now: Timestamp) -> ControlResult {
        let standing = current[record.gpu]
        guard standing?.sequence ?? 0 == expected else { return .conflict(standing) }
        lastSequence += 1
        current[record.gpu] = ControlRevision(record: record, sequence: lastSequence, storedAt: now)
        return .stored(sequence: lastSequence)
    }

    func remove(_ gpu: GPUID) { current[gpu] = nil }
}
