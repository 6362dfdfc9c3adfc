import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore

/// What the core decided about cards, carried out: their control records, and requests to their workers.
extension LeaderTerm {
    func writeControl(_ record: CardControl, expected: UInt64) async {
        let gpu = record.gpu
        let outcome = await ControlStore(context.jetStream, names: context.names).write(
            record,
            to: context.names.cardControl(gpu),
            expected: expected,
            until: patience
        )
        let result: ControlResult
        switch outcome {
        case .stored(let sequence): result = .stored(sequence: sequence)
        case .conflict(let current): result = .conflict(current.map(revision))
        case .failed(let reason): result = .refused(reason)
        }
        mailbox.sendOutcome(.controlWritten(gpu, record.op, result))
    }

    private func revision(_ stored: ControlStore.Stored<CardControl>) -> ControlRevision {
        let storedAt = Timestamp(nanoseconds: stored.timestamp) + submissions.serverClockOffset
        return ControlRevision(record: stored.record, sequence: stored.sequence, storedAt: storedAt)
    }

    func requestCancel(_ gpu: GPUID, _ job: JobID, _ attempt: AttemptID) async {
        guard let failure = await requestEnd(gpu, .cancel(job, attempt)) else { return }
        // The record says that the job is to be killed, and the next heartbeat repeats the request.
        context.logger.debug("a cancel did not reach its worker", metadata: ["job": "\(job)", "error": "\(failure)"])
    }

    func requestEvict(_ gpu: GPUID, _ job: JobID, _ attempt: AttemptID, _ code: FailureCode, reason: String) async {
        guard isTrusted else { return }
        guard let failure = await requestEnd(gpu, .evict(job, attempt, code, reason: reason)) else { return }
        mailbox.sendOutcome(.evictionFailed(gpu, job, reason: failure))
    }

    /// Asks a worker to end an attempt.
    /// - Returns: why it does not, as far as is known.
    private func requestEnd(_ gpu: GPUID, _ request: WorkerRequest) async -> String? {
        do {
            let answer = try await ask(gpu, request, deadline: .seconds(2))
            return answer.ok ? nil : answer.error ?? "its worker refuses"
        } catch {
            return "\(error)"
        }
    }

    /// A probe takes a while, and a request cannot be ended: it is no child of the term, which may have to end at once.
    func requestProbe(_ gpu: GPUID) {
        Task {
            let result: ProbeResult
            do {
                let answer = try await ask(gpu, .probe, deadline: Self.probeDeadline)
                result = Self.result(of: answer)
            } catch {
                result = .notDone(reason: "\(error)")
            }
            mailbox.sendOutcome(.probeEnded(gpu, result))
        }
    }

    /// Above what a worker takes at most, 75 s.
    private static let probeDeadline = Duration.seconds(90)

    private static func result(of answer: WorkerAnswer) -> ProbeResult {
        if let error = answer.error { return .notDone(reason: error) }
        let evidence = answer.evidence ?? ""
        return answer.ok ? .works(evidence: evidence) : .sick(evidence: evidence)
    }

    private func ask(_ gpu: GPUID, _ request: WorkerRequest, deadline: Duration) async throws -> WorkerAnswer {
        let subject = context.names.workerRequest(gpu, request.verb)
        let message = try await context.connection.request(request.encoded(), to: subject, deadline: deadline)
        return try WorkerAnswer(parsing: message.payload)
    }
}
