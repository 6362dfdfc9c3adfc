import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Synchronization
import WireJSON

/// Why a check failed, for a person.
struct SmokeFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// The checks of an installation. Each is bounded in time, and none needs anything but the bus: workers may be on any
/// host.
final class Smoke: Sendable {
    let client: PoolClient
    let deadline: Duration
    /// What the ids of this run's jobs begin with.
    private let prefix: String
    private let jobs = Mutex<[JobID]>([])

    init(_ client: PoolClient, deadline: Duration) {
        self.client = client
        self.deadline = deadline
        var source = IdentifierSource()
        // Long enough not to meet an earlier run's: an id is for ever.
        prefix = "smoke-\(source.hexadecimal().prefix(10))"
    }

    /// Runs all checks; the later ones are not tried when what they stand on is missing.
    func run(_ report: SmokeReport) async {
        let base: [(String, @Sendable () async throws -> String)] = [
            ("JetStream is on", { try await self.checkJetStream() }),
            ("the streams are right", { try await self.checkStreams() }),
            ("a maestro leads", { try await self.checkMaestro() }),
            ("every worker is heard", { try await self.checkHeartbeats() }),
        ]
        report.add(
            "the server answers",
            passed: true,
            seconds: 0,
            detail: Secrets.masked(client.connection.serverInfo?.url ?? "")
        )
        for (name, check) in base {
            guard await attempt(name, report, check) else { return }
        }
        let cards: [GPUID]
        do {
            cards = try await self.cards()
        } catch {
            return report.add("the cards", passed: false, seconds: 0, detail: "\(error)")
        }
        await withTaskGroup { group in
            for card in cards {
                group.addTask {
                    _ = await self.attempt("a job on card \(card)", report) { try await self.checkJob(on: card) }
                }
            }
        }
        _ = await attempt("a failing job is tried again", report) { try await self.checkRetries() }
        _ = await attempt("an overlong job is ended", report) { try await self.checkTimeout() }
        _ = await attempt("a cancelled job leaves nothing", report) { try await self.checkCancel() }
        _ = await attempt("a bad job is refused", report) { try await self.checkRefusal() }
        _ = await attempt("an id that comes twice runs once", report) { try await self.checkDuplicate() }
    }

    /// Runs one check with the deadline.
    private func attempt(
        _ name: String,
        _ report: SmokeReport,
        _ check: @escaping @Sendable () async throws -> String
    ) async -> Bool {
        let start = ContinuousClock.now
        let result = await bounded(check)
        let seconds = (ContinuousClock.now - start).inSeconds
        if Task.isCancelled { return false }
        switch result {
        case .success(let detail):
            report.add(name, passed: true, seconds: seconds, detail: detail)
            return true
        case .failure(let error):
            report.add(name, passed: false, seconds: seconds, detail: "\(error)")
            return false
        }
    }

    private func bounded(_ check: @escaping @Sendable () async throws -> String) async -> Result<String, any Error> {
        let late = SmokeFailure("not ended after \(Printable.duration(deadline.inSeconds))")
        return await withTaskGroup(of: Result<String, any Error>.self) { group in
            group.addTask {
                do {
                    return .success(try await check())
                } catch {
                    return .failure(error is CancellationError ? late : error)
                }
            }
            group.addTask { [deadline] in
                do {
                    try await Task.sleep(for: deadline)
                    return .failure(late)
                } catch {
                    return .failure(error)
                }
            }
            let first = await group.next() ?? .failure(late)
            group.cancelAll()
            return first
        }
    }

    // MARK: the jobs of the checks

    /// Submits a job of this run without the checks of a submission, so that bad ones get through too.
    /// - Parameter fields: the task without its id.
    func submit(_ name: String, _ fields: JSONObject) async throws -> JobID {
        guard let id = JobID("\(prefix)-\(name)") else { throw SmokeFailure("\(name) makes no id") }
        jobs.withLock { $0.append(id) }
        var task = fields
        task["task_id"] = .string(id.text)
        // Before whatever waits: the checks are about the pool, not about its load.
        task["priority"] = 100
        try await publish(JSON.object(task), messageID: "sub:\(id)")
        return id
    }

    /// - Parameter messageID: nil to get past the server's own recognition of duplicates.
    func publish(_ task: JSON, messageID: String?) async throws {
        let outcome = await client.jetStream.publishUntilDefinite(
            task.encoded(),
            to: client.names.enqueueSubject,
            messageID: messageID,
            until: .now + deadline
        )
        switch outcome {
        case .stored: return
        case .refused(let error): throw SmokeFailure("the submission was refused: \(error)")
        case .unknown(let error): throw SmokeFailure("the submission was not answered: \(error)")
        }
    }

    /// Waits for a job's end.
    func end(of id: JobID) async throws -> StoredRecord {
        var follow = JobFollow(client, [id])
        var last: StoredRecord?
        _ = try await follow.run(deadline: deadline, catchesInterrupts: false) { update in
            if case .record(let record) = update { last = record }
        }
        guard let last, last.record.state.isTerminal else {
            let story = last.map { JobText.story(of: $0.record) } ?? "never admitted"
            throw SmokeFailure("\(id) did not end: \(story)")
        }
        return last
    }

    /// What an ended job wrote to its standard output.
    func output(of record: StoredRecord) async throws -> String {
        try await JobResult.read(of: record, client)["data"]?["stdout"]?.stringValue ?? ""
    }

    func expect(_ record: StoredRecord, _ state: JobState) throws {
        guard record.record.state == state else {
            throw SmokeFailure(
                "\(record.record.id) is \(JobText.story(of: record.record)); it should be \(state.rawValue)"
            )
        }
    }

    /// The cards whose workers were heard of.
    func cards() async throws -> [GPUID] {
        try await client.api.cards().filter { !["gone", "no worker"].contains($0.state) }.map(\.gpu).sorted()
    }

    /// Cancels whatever of this run has not ended, as after a failed check.
    func cleanUp() async {
        for id in jobs.withLock({ $0 }) {
            do {
                guard let record = try await client.records.read(id)?.record, !record.state.isTerminal else { continue }
                _ = try await client.api.cancel(id, reason: "maestroctl smoke has ended")
            } catch {
                Console.say("maestroctl: whether \(id) still runs is unknown: \(error)")
            }
        }
    }
}
