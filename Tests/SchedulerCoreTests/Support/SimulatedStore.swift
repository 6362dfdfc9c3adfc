import JobModel
import SchedulerCore

/// The stream of records: one message for each job, compare-and-set, sequences that only rise.
final class SimulatedStore {
    private(set) var lastSequence: UInt64 = 0
    private var current: [JobID: RecordRevision] = [:]
    /// Every write in its order; those that were replaced are skipped by readers, as the server skips them.
    private var log: [(sequence: UInt64, job: JobID)] = []
    /// What the writes broke of the rules that every write has to keep.
    private(set) var violations: [String] = []

    subscript(id: JobID) -> RecordRevision? { current[id] }

    /// The records as they stand, in the order of their last writes.
    var revisions: [RecordRevision] { log.compactMap { entry in live(entry.sequence, entry.job) } }

    /// Stores the record if its subject stands at `expected`, 0 meaning that there is none.
    func write(_ record: JobRecord, expected: UInt64, at now: Timestamp) -> WriteResult {
        let standing = current[record.id]
        guard standing?.sequence ?? 0 == expected else { return .conflict(standing) }
        check(record, after: standing?.record)
        lastSequence += 1
        current[record.id] = RecordRevision(record: record, sequence: lastSequence, storedAt: now)
        log.append((lastSequence, record.id))
        return .stored(sequence: lastSequence)
    }

    /// The first message behind a reader's place that was not replaced meanwhile.
    func next(after place: UInt64) -> RecordRevision? {
        var low = 0
        var high = log.count
        while low < high {
            let middle = (low + high) / 2
            if log[middle].sequence <= place { low = middle + 1 } else { high = middle }
        }
        for entry in log[low...] {
            if let revision = live(entry.sequence, entry.job) { return revision }
        }
        return nil
    }

    func remove(_ id: JobID) { current[id] = nil }

    /// Deletes the message at exactly this sequence, if it is still there.
    func remove(at sequence: UInt64) {
        guard let revision = current.values.first(where: { $0.sequence == sequence }) else { return }
        if !revision.record.state.isTerminal { violate("\(revision.record.id) was removed before it had ended") }
        remove(revision.record.id)
    }

    private func live(_ sequence: UInt64, _ job: JobID) -> RecordRevision? {
        current[job].flatMap { $0.sequence == sequence ? $0 : nil }
    }

    private func check(_ new: JobRecord, after old: JobRecord?) {
        guard let old else {
            if !JobState.initial.contains(new.state) { violate("\(new.id) begins as \(new.state.rawValue)") }
            return
        }
        if old.state.isTerminal { violate("\(new.id) changed after it ended as \(old.state.rawValue)") }
        if !old.state.successors.contains(new.state) {
            violate("\(new.id) went from \(old.state.rawValue) to \(new.state.rawValue)")
        }
        if old.op == new.op { violate("\(new.id) was written twice under one op") }
        if new.tries < old.tries || new.lost < old.lost { violate("\(new.id) counted backwards") }
        if old.state == .running, new.state != .enqueued, new.attempt != old.attempt {
            violate("\(new.id) changed its attempt while it ran")
        }
    }

    private func violate(_ what: String) { violations.append(what) }
}
