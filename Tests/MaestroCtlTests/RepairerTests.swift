import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Testing
import WireJSON

@testable import MaestroCtl

/// Repairs of what has changed since it was found: nothing of it is touched.
@Suite("The doctor's repairs on a real server", .serialized)
struct RepairerTests {
    private let now = Timestamp(nanoseconds: 1)

    private func enqueued(_ id: String) throws -> JobRecord {
        var source = IdentifierSource()
        return JobRecord(
            admitting: try #require(JobID(id)),
            submission: Array(#"{"task_id":"\#(id)","cmd":["true"]}"#.utf8),
            digest: "sha256:x",
            order: 1,
            limits: .none,
            op: OperationID(from: &source),
            at: now,
            submitted: 0
        )
    }

    private func step(_ record: JobRecord, _ transition: JobTransition) throws -> JobRecord {
        var (next, source) = (record, IdentifierSource())
        try next.apply(transition, op: OperationID(from: &source), at: now)
        return next
    }

    private func scheduled(_ id: String) throws -> JobRecord {
        var source = IdentifierSource()
        let gpu = try #require(GPUID("0"))
        let attempt = AttemptID(from: &source)
        return try step(enqueued(id), .schedule(gpu: gpu, attempt: attempt, owner: Incarnation(from: &source)))
    }

    private func store(_ record: JobRecord, expected: UInt64, _ client: PoolClient) async throws -> UInt64 {
        let outcome = await client.records.write(record, expected: expected, until: .now + .seconds(30))
        guard case .stored(let sequence) = outcome else { throw FatalError(.failure, "\(outcome)") }
        return sequence
    }

    private func dispatch(_ run: RunMessage, _ client: PoolClient) async throws -> UInt64 {
        let subject = client.names.run(try #require(run.record.gpu))
        guard case .stored(let ack) = await client.jetStream.publish(run.encoded(), to: subject) else {
            throw FatalError(.failure, "the run message was not stored")
        }
        return ack.sequence
    }

    private func runs(_ client: PoolClient) async throws -> UInt64 {
        try await client.jetStream.streamInfo(client.names.runStream).messages
    }

    @Test func anAttemptIsTakenBackOnlyWhereItStands() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repairer = Repairer(client: client)
        let record = try scheduled("a")
        let attempt = try #require(record.attempt)
        let sequence = try await store(record, expected: 0, client)
        let stale = await repairer.carryOut(.takeBack(record.id, attempt: attempt, sequence: sequence + 1))
        #expect(stale == .notNeeded("its record has moved on"))
        #expect(await repairer.carryOut(.takeBack(record.id, attempt: attempt, sequence: sequence)) == .done)
        let back = try #require(try await client.records.read(record.id))
        #expect(back.record.state == .enqueued)
        #expect(back.record.submission == record.submission)

        // A worker was faster: its claim stands.
        let again = try step(
            back.record,
            .schedule(
                gpu: try #require(GPUID("0")),
                attempt: attempt,
                owner: try #require(record.owner)
            )
        )
        let place = try await store(again, expected: back.sequence, client)
        _ = try await store(try step(again, .claim), expected: place, client)
        let late = await repairer.carryOut(.takeBack(record.id, attempt: attempt, sequence: place))
        #expect(late == .notNeeded("its record has moved on"))
        #expect(try await client.records.read(record.id)?.record.state == .running)
        await client.close()
    }

    @Test func aRunMessageIsRemovedOnlyWhileNothingNeedsIt() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repairer = Repairer(client: client)
        let record = try scheduled("a")
        let attempt = try #require(record.attempt)
        let place = try await store(record, expected: 0, client)
        let sequence = try await dispatch(RunMessage(record: record, sequence: place), client)
        // Its attempt is scheduled: needed.
        let needed = await repairer.carryOut(.removeRun(sequence: sequence, attempt: attempt))
        #expect(needed == .notNeeded("its attempt is scheduled now"))
        var source = IdentifierSource()
        let another = await repairer.carryOut(.removeRun(sequence: sequence, attempt: AttemptID(from: &source)))
        #expect(another == .notNeeded("another message stands there, or none"))
        #expect(try await runs(client) == 1)
        _ = try await store(try step(record, .takeBack(reason: "test")), expected: place, client)
        #expect(await repairer.carryOut(.removeRun(sequence: sequence, attempt: attempt)) == .done)
        #expect(try await runs(client) == 0)
        let gone = await repairer.carryOut(.removeForeignRun(sequence: sequence, payload: []))
        #expect(gone == .notNeeded("another message stands there, or none"))
        await client.close()
    }

    @Test func aRecordIsMadeAnewOnlyWhereThereIsNoneAndNoResult() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repairer = Repairer(client: client)
        let run = RunMessage(record: try scheduled("a"), sequence: 5)
        #expect(await repairer.carryOut(.restoreRecord(run)) == .done)
        let made = try #require(try await client.records.read(run.record.id))
        #expect(made.record.state == .enqueued)
        #expect(made.record.submission == run.record.submission)
        // It has ended meanwhile: that stays as it is.
        let ended = try step(made.record, .cancel(reason: "test", nil))
        let sequence = try await store(ended, expected: made.sequence, client)
        let again = await repairer.carryOut(.restoreRecord(run))
        #expect(again == .notNeeded("somebody else wrote its record"))
        #expect(try await client.records.read(run.record.id)?.sequence == sequence)

        let told = RunMessage(record: try scheduled("b"), sequence: 6)
        let event = ResultEvent(job: told.record.id, state: .done, tries: 1, outcome: nil, time: 0)
        let subject = client.names.result(told.record.id)
        _ = await client.jetStream.publish(event.encodedWithoutOutput(), to: subject)
        #expect(await repairer.carryOut(.restoreRecord(told)) == .notNeeded("its result is there: it has ended"))
        #expect(try await client.records.read(told.record.id) == nil)
        await client.close()
    }

    @Test func aResultIsPublishedOnceAndOfEndedJobsAlone() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repairer = Repairer(client: client)
        let record = try enqueued("a")
        let sequence = try await store(record, expected: 0, client)
        #expect(await repairer.carryOut(.publishResult(record.id)) == .notNeeded("it has no ended record"))
        _ = try await store(try step(record, .cancel(reason: "test", nil)), expected: sequence, client)
        #expect(await repairer.carryOut(.publishResult(record.id)) == .done)
        #expect(await repairer.carryOut(.publishResult(record.id)) == .notNeeded("somebody else published it"))
        let subject = client.names.result(record.id)
        let result = try await client.jetStream.lastMessage(stream: client.names.eventsStream, subject: subject)
        let json = try JSON(parsing: try #require(result).payload)
        #expect(json["state"]?.stringValue == "cancelled")
        #expect(json["ok"]?.boolValue == false)
        // Each repair that was done is told, and kept.
        let events = client.names.maestroEvent("repair")
        let last = try await client.jetStream.lastMessage(stream: client.names.eventsStream, subject: events)
        #expect(try JSON(parsing: try #require(last).payload)["task_id"]?.stringValue == "a")
        await client.close()
    }

    @Test func aControlRecordThatWasWrittenAgainIsLeft() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repairer = Repairer(client: client)
        let subject = client.names.leader
        guard case .stored(let first) = await client.jetStream.publish(Array("x".utf8), to: subject),
            case .stored(let second) = await client.jetStream.publish(Array("y".utf8), to: subject)
        else {
            Issue.record("the lease was not stored")
            return
        }
        let stale = await repairer.carryOut(.removeControl(subject: subject, sequence: first.sequence))
        #expect(stale == .notNeeded("it was written again"))
        #expect(await repairer.carryOut(.removeControl(subject: subject, sequence: second.sequence)) == .done)
        #expect(try await client.jetStream.lastMessage(stream: client.names.controlStream, subject: subject) == nil)
        await client.close()
    }

    @Test func aConsumerThatIsGoneIsLeft() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let repair = Repair.remakeConsumer(stream: client.names.workQueueStream, name: client.names.enqueueConsumer)
        #expect(await Repairer(client: client).carryOut(repair) == .notNeeded("it is gone"))
        await client.close()
    }
}
