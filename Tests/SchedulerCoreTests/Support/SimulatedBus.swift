import JobModel
import SchedulerCore

/// The streams besides the records: the work queue, the run messages, the results, the registrations.
final class SimulatedBus {
    struct Message {
        let sequence: UInt64
        let bytes: [UInt8]
        let timestamp: Int64
        /// Delivered and not acknowledged; delivered again after this time.
        var inFlightUntil: Timestamp?
    }

    struct Run {
        let sequence: UInt64
        let message: RunMessage
    }

    static let ackWait = Duration.seconds(30)

    private(set) var submissions: [Message] = []
    private(set) var runs: [GPUID: [Run]] = [:]
    private(set) var results: [JobID: ResultEvent] = [:]
    private(set) var registrations: [WorkerRegistration] = []
    /// Up to where the leaders say that all results are told.
    var resultsPlace: UInt64 = 0
    private var lastSubmission: UInt64 = 0
    private var lastRun: UInt64 = 0

    // MARK: work queue

    func submit(_ bytes: [UInt8], at now: Timestamp) {
        lastSubmission += 1
        submissions.append(Message(sequence: lastSubmission, bytes: bytes, timestamp: now.nanoseconds))
    }

    /// The next message that nobody is working on; it is in flight from then.
    func nextSubmission(at now: Timestamp) -> Message? {
        guard let index = submissions.firstIndex(where: { $0.inFlightUntil.map { $0 <= now } ?? true }) else {
            return nil
        }
        submissions[index].inFlightUntil = now + Self.ackWait
        return submissions[index]
    }

    /// The consumer is made anew: what is not acknowledged is delivered again.
    func resetConsumer() {
        for index in submissions.indices { submissions[index].inFlightUntil = nil }
    }

    func acknowledge(_ sequences: [UInt64]) { submissions.removeAll { sequences.contains($0.sequence) } }

    // MARK: run messages

    func publishRun(_ gpu: GPUID, _ message: RunMessage) -> UInt64 {
        lastRun += 1
        runs[gpu, default: []].append(Run(sequence: lastRun, message: message))
        return lastRun
    }

    func deleteRun(_ gpu: GPUID, _ sequence: UInt64) { runs[gpu]?.removeAll { $0.sequence == sequence } }

    // MARK: results, registrations

    /// Stores a result unless there is one: false then.
    func publishResult(_ event: ResultEvent) -> Bool {
        guard results[event.job] == nil else { return false }
        results[event.job] = event
        return true
    }

    func register(_ registration: WorkerRegistration) {
        registrations.removeAll { $0.gpu == registration.gpu }
        registrations.append(registration)
    }
}
