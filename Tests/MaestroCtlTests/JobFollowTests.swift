import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Synchronization
import Testing

@testable import MaestroCtl

@Suite("Following jobs on a real server", .serialized)
struct JobFollowTests {
    private func id(_ text: String) throws -> JobID { try #require(JobID(text)) }

    /// A record as a maestro would admit it, stored; with its sequence.
    private func admit(_ text: String, _ client: PoolClient) async throws -> (JobRecord, UInt64) {
        var source = IdentifierSource()
        let record = JobRecord(
            admitting: try id(text),
            submission: Array(#"{"cmd":["true"]}"#.utf8),
            digest: "sha256:x",
            order: 1,
            limits: .none,
            op: OperationID(from: &source),
            at: Timestamp(nanoseconds: 1),
            submitted: 0
        )
        return (record, try await store(record, expected: 0, client))
    }

    private func store(_ record: JobRecord, expected: UInt64, _ client: PoolClient) async throws -> UInt64 {
        let outcome = await client.records.write(record, expected: expected, until: .now + .seconds(30))
        guard case .stored(let sequence) = outcome else { throw FatalError(.failure, "\(outcome)") }
        return sequence
    }

    private func cancel(_ admitted: (JobRecord, UInt64), _ client: PoolClient) async throws {
        var source = IdentifierSource()
        var (record, sequence) = admitted
        try record.apply(.cancel(reason: "test", nil), op: OperationID(from: &source), at: Timestamp(nanoseconds: 2))
        _ = try await store(record, expected: sequence, client)
    }

    @Test func manyJobsAreFollowedWhetherTheyEndedBeforeOrAfter() async throws {
        let server = try RealServer()
        let client = try await server.client()
        var admitted: [(JobRecord, UInt64)] = []
        for number in 0..<200 { admitted.append(try await admit("job-\(number)", client)) }
        for job in admitted.prefix(100) { try await cancel(job, client) }
        let later = Array(admitted.dropFirst(100))
        var follow = JobFollow(client, admitted.map(\.0.id))
        var ended: Set<JobID> = []
        var canceller: Task<Void, any Error>?
        let end = try await follow.run(deadline: .seconds(60), catchesInterrupts: false) { update in
            guard case .record(let stored) = update else { return }
            if stored.record.state.isTerminal { #expect(ended.insert(stored.record.id).inserted) }
            // The others end while they are followed.
            if ended.count == 100, canceller == nil {
                canceller = Task { for job in later { try await cancel(job, client) } }
            }
        }
        try await canceller?.value
        #expect(end == .complete)
        #expect(ended.count == 200)
        await client.close()
    }

    @Test func aJobThatNobodyKnowsIsTold() async throws {
        let server = try RealServer()
        let client = try await server.client()
        var follow = JobFollow(client, [try id("nobody")])
        var unknown: [JobID] = []
        let end = try await follow.run(deadline: .seconds(60), catchesInterrupts: false) { update in
            if case .unknown(let job) = update { unknown.append(job) }
        }
        #expect(end == .complete)
        #expect(unknown.map(\.text) == ["nobody"])
        await client.close()
    }

    @Test func aSubmissionThatWaitsForAMaestroIsWaitedFor() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let job = try id("waiting")
        let outcome = await client.jetStream.publish(
            Array(#"{"task_id":"waiting","cmd":["true"]}"#.utf8),
            to: client.names.enqueueSubject
        )
        #expect(outcome == .stored(PublishAck(stream: "ORG_WQ", sequence: 1, isDuplicate: false)))
        var follow = JobFollow(client, [job])
        var troubles: [String] = []
        let end = try await follow.run(deadline: .milliseconds(500), catchesInterrupts: false) { update in
            if case .trouble(let text) = update { troubles.append(text) }
        }
        #expect(end == .deadline([job]))
        #expect(troubles == ["waiting is not admitted yet: submissions wait for a maestro to take them"])
        await client.close()
    }

    @Test func outputComesWholeAndOnce() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let job = try await admit("talker", client)
        let attempt = try #require(AttemptID("a1"))
        var chunks: [LogChunk] = []
        for number in 0..<50 {
            let text = "line \(number)\n"
            let chunk = LogChunk(
                job: job.0.id,
                attempt: attempt,
                stream: .standardOutput,
                offset: UInt64(number * 10),
                text: text,
                time: 0
            )
            chunks.append(chunk)
            // The ack of every tenth was lost, so it was sent twice.
            if number % 10 == 0 { chunks.append(chunk) }
        }
        for chunk in chunks {
            let outcome = await client.jetStream.publish(chunk.encoded(), to: client.names.log(job.0.id))
            guard case .stored = outcome else { throw FatalError(.failure, "\(outcome)") }
        }
        try await cancel(job, client)
        var follow = JobFollow(client, [job.0.id], showsOutput: true)
        var text = ""
        let end = try await follow.run(deadline: .seconds(60), catchesInterrupts: false) { update in
            if case .output(let chunk) = update { text += chunk.text }
        }
        #expect(end == .complete)
        #expect(text == (0..<50).map { "line \($0)\n" }.joined())
        await client.close()
    }
}
