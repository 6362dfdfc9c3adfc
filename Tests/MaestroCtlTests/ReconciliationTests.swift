import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Testing
import WireJSON

@testable import MaestroCtl

@Suite("Reconciling with a real server", .serialized)
struct ReconciliationTests {
    private func submission(_ id: String, _ program: String = "true") throws -> Submission {
        Submission(id: try #require(JobID(id)), exactly: Array(#"{"task_id":"\#(id)","cmd":["\#(program)"]}"#.utf8))
    }

    private func store(_ submission: Submission, cancelled: Bool, _ client: PoolClient) async throws {
        var source = IdentifierSource()
        let now = Timestamp(nanoseconds: 1)
        var record = JobRecord(
            admitting: submission.id,
            submission: submission.bytes,
            digest: "sha256:x",
            order: 1,
            limits: .none,
            op: OperationID(from: &source),
            at: now,
            submitted: 0
        )
        if cancelled { try record.apply(.cancel(reason: "test", nil), op: OperationID(from: &source), at: now) }
        let outcome = await client.records.write(record, expected: 0, until: .now + .seconds(30))
        guard case .stored = outcome else { throw FatalError(.failure, "\(outcome)") }
    }

    private func actions(_ steps: [Reconciliation.Step]) -> [String: Reconciliation.Action] {
        Dictionary(uniqueKeysWithValues: steps.map { ($0.entry.submission.id.text, $0.action) })
    }

    @Test func everythingIsFoundOrSubmittedAgain() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let test = TestJournal()
        let now = 1_000_000.0
        let hour = Duration.seconds(3600)
        try test.journal.append([submission("forgotten-long-ago")], at: now - 7200)
        let names = ["ended", "runs", "waits", "lost", "other", "unreadable"]
        try test.journal.append(names.map { try submission($0) }, at: now - 60)
        try await store(submission("ended"), cancelled: true, client)
        try await store(submission("runs"), cancelled: false, client)
        try await store(submission("other", "false"), cancelled: false, client)
        let waits = try submission("waits")
        let submitter = Submitter(client.jetStream, names: client.names)
        #expect(
            await submitter.submit(waits, until: .now + .seconds(30)) == .stored(sequence: 1, isDuplicate: false)
        )
        let unreadable = client.names.statePrefix + ".unreadable"
        guard case .stored = await client.jetStream.publish(Array("no record".utf8), to: unreadable) else {
            return #expect(Bool(false), "the damaged record was not stored")
        }

        let reconciliation = Reconciliation(client: client, journal: test.journal)
        let dry = actions(try await reconciliation.run(horizon: hour, now: now, isDry: true))
        #expect(dry["lost"] == .wouldResubmit)
        #expect(try await client.jetStream.streamInfo(client.names.workQueueStream).messages == 1)

        let steps = try await reconciliation.run(horizon: hour, now: now)
        let found = actions(steps)
        #expect(found["ended"] == Reconciliation.Action.none(.ended(.cancelled)))
        #expect(found["runs"] == Reconciliation.Action.none(.alive(.enqueued)))
        #expect(found["waits"] == Reconciliation.Action.none(.queued))
        #expect(found["other"] == Reconciliation.Action.none(.conflict))
        #expect(found["lost"] == .resubmitted)
        #expect(found["forgotten-long-ago"] == .tooOld)
        guard case .some(.none(.unreadable)) = found["unreadable"] else {
            return #expect(Bool(false), "\(found)")
        }
        let again = try await client.jetStream.message(stream: client.names.workQueueStream, sequence: 2)
        #expect(try again?.payload == submission("lost").bytes)
        #expect(again?.headers["Nats-Msg-Id"] == "sub:lost")
        let report = ReconcileReport(steps: steps, now: now)
        #expect(report.isTrouble)
        #expect(report.lines(width: 80, Paint(isOn: false)).allSatisfy { $0.count <= 80 })
        #expect(report.jsonLines("j").last?["ok"]?.boolValue == false)

        // What was told or has ended is forgotten; the rest is in order now.
        let later = try await reconciliation.run(horizon: hour, now: now)
        #expect(Set(actions(later).keys) == ["runs", "waits", "lost", "unreadable"])
        #expect(actions(later)["lost"] == Reconciliation.Action.none(.queued))
        await client.close()
    }

    @Test func aLargeJournalIsComparedWithTheWholeStream() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let test = TestJournal()
        let all = try (0..<2100).map { try submission("job-\($0)") }
        try test.journal.append(all, at: 1)
        for job in all.prefix(30) { try await store(job, cancelled: true, client) }
        let steps = try await Reconciliation(client: client, journal: test.journal)
            .run(horizon: .seconds(3600), now: 1)
        #expect(steps.count { $0.action == .resubmitted } == 2070)
        #expect(steps.count { $0.action == Reconciliation.Action.none(.ended(.cancelled)) } == 30)
        #expect(try await client.jetStream.streamInfo(client.names.workQueueStream).messages == 2070)
        #expect(try test.journal.read().entries.count == 2070)
        await client.close()
    }

    @Test func aFullQueueIsToldAndTheJournalKeepsWhatItRefused() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let info = try await client.jetStream.streamInfo(client.names.workQueueStream)
        guard case .object(var config) = info.config else { return #expect(Bool(false), "no configuration") }
        config["max_msgs"] = 3
        _ = try await client.jetStream.updateStream(.object(config))
        let test = TestJournal()
        try test.journal.append((0..<5).map { try submission("job-\($0)") }, at: 1)
        let steps = try await Reconciliation(client: client, journal: test.journal)
            .run(horizon: .seconds(3600), now: 1)
        let refused = steps.compactMap { if case .refused(let why) = $0.action { why } else { nil } }
        #expect(refused.count == 2)
        #expect(refused.allSatisfy { $0.hasPrefix("the queue is full") })
        #expect(try test.journal.read().entries.count == 5)
        await client.close()
    }
}
