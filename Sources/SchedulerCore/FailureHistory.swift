import DequeModule
import JobModel

/// What the records tell of attempts that ended before a leader's time, collected until its ``FailureLedger`` is filled.
///
/// A record names the card of its last attempt alone. So it tells where a job has failed as long as that has not been tried
/// again; of a job that went on it tells that it had failed, and no longer where. Successes are told in full.
struct FailureHistory: Sendable {
    struct Entry: Sendable {
        let job: JobID
        let submission: [UInt8]
        /// How the last attempt ended, if that says something of a card.
        let end: AttemptEnd?
        /// The job has failed before that, somewhere.
        let hasFailedBefore: Bool
        let storedAt: Timestamp
    }

    /// In the order of the stream, the last ones of all.
    private(set) var entries = Deque<Entry>()
    private var size = 0
    private var lastSequence: UInt64 = 0

    static let maximumEntries = 4096
    /// Of submissions, in bytes.
    static let maximumSize = 16 << 20

    /// Takes a revision in; what ended long ago, as most have, is left out.
    mutating func note(_ revision: RecordRevision, at now: Timestamp) {
        let record = revision.record
        guard revision.sequence > lastSequence else { return }
        lastSequence = revision.sequence
        guard !record.state.isTerminal || now - revision.storedAt <= FailureLedger.recentTime else { return }
        let entry = Entry(
            job: record.id,
            submission: record.submission,
            end: record.lastEnd,
            hasFailedBefore: record.hasFailedBefore,
            storedAt: revision.storedAt
        )
        guard entry.end != nil || entry.hasFailedBefore else { return }
        entries.append(entry)
        size += entry.submission.count
        while entries.count > Self.maximumEntries || size > Self.maximumSize {
            size -= entries.removeFirst().submission.count
        }
    }
}

/// How an attempt ended, where that says something of its card.
enum AttemptEnd: Sendable, Equatable {
    case succeeded(GPUID)
    /// In a way that may be the card's fault.
    case failed(GPUID)
}

extension JobRecord {
    /// How the last attempt ended, as long as the record tells of that one.
    var lastEnd: AttemptEnd? {
        guard let gpu else { return nil }
        switch state {
        case .done: return .succeeded(gpu)
        case .enqueued, .waitingGPU:
            guard endedInFailure else { return nil }
            fallthrough
        case .failed, .retry: return outcome?.mayBeTheCardsFault == true ? .failed(gpu) : nil
        case .scheduled, .running, .cancelled, .rejected: return nil
        }
    }

    /// An attempt before the one that ``lastEnd`` tells of failed.
    fileprivate var hasFailedBefore: Bool {
        let isLastTold = state == .retry || ((state == .enqueued || state == .waitingGPU) && endedInFailure)
        return failedAttempts.count > (isLastTold ? 1 : 0)
    }

    /// The attempt that the record names failed: it was not lost since, nor was another one taken back.
    private var endedInFailure: Bool { attempt != nil && failedAttempts.last == attempt }
}

extension AttemptOutcome {
    /// The process ran and failed, and not for want of its program: 126 and 127 are a shell's words for that.
    fileprivate var mayBeTheCardsFault: Bool {
        switch code {
        case .exit: returnCode != 126 && returnCode != 127
        case .signal, .timeout: true
        case .spawn, .lost, .cancelled, .drained, .overheated, .cardFailed, .fenced, .badTask, .forbidden, .idConflict,
            .tooOld, .waitedTooLong, .tooManyJobs, .notDispatched, .workerFault, nil:
            false
        }
    }
}
