import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Testing

@testable import MaestroCtl

@Suite("Submitting to a real server", .serialized)
struct SubmitterTests {
    private let now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

    private func submission(_ id: String, _ program: String = "true") throws -> Submission {
        var source = IdentifierSource(seed: 1)
        let task = #"{"task_id":"\#(id)","cmd":["\#(program)"]}"#
        return try Submission(task: Array(task.utf8), now: now, from: &source)
    }

    @Test func everyJobIsStoredOnceAndInOrder() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let tasks = try (0..<2000).map { Result<Submission, FatalError>.success(try submission("job-\($0)")) }
        var sequences: [String: UInt64] = [:]
        try await Submitter(client.jetStream, names: client.names, window: 100)
            .submit(tasks, patience: .seconds(60)) { submission, outcome in
                if case .stored(let sequence, false) = outcome { sequences[submission.id.text] = sequence }
            }
        #expect(sequences.count == 2000)
        #expect((0..<2000).allSatisfy { sequences["job-\($0)"] == UInt64($0 + 1) })
        await client.close()
    }

    @Test func aServerThatDiesLosesNothingAndDoublesNothing() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let count = 3000
        let tasks = try (0..<count).map { Result<Submission, FatalError>.success(try submission("job-\($0)")) }
        var stored: Set<String> = []
        var crash: Task<Void, any Error>?
        // The server dies while submissions are under way, and comes back while they are sent again.
        let restart: @Sendable (sending RealServer) -> Task<Void, any Error> = { server in
            Task {
                await server.kill()
                try server.start()
            }
        }
        nonisolated(unsafe) let crashing = server  // Used by nobody else until the crash has been awaited.
        try await Submitter(client.jetStream, names: client.names, window: 200)
            .submit(tasks, patience: .seconds(60)) { submission, outcome in
                if case .stored = outcome { stored.insert(submission.id.text) }
                if stored.count == 500, crash == nil { crash = restart(crashing) }
            }
        try await crash?.value
        #expect(crash != nil)
        #expect(stored.count == count)
        let info = try await client.jetStream.streamInfo(client.names.workQueueStream)
        #expect(info.messages == UInt64(count))
        await client.close()
    }

    @Test func theSameIdIsOneJobAndOtherContentAConflict() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let submitter = Submitter(client.jetStream, names: client.names)
        let until = ContinuousClock.now + .seconds(30)
        #expect(await submitter.submit(try submission("a"), until: until) == .stored(sequence: 1, isDuplicate: false))
        #expect(await submitter.submit(try submission("a"), until: until) == .stored(sequence: 1, isDuplicate: true))
        #expect(await submitter.submit(try submission("a", "false"), until: until) == .conflict)
        await client.close()
    }

    /// Whatever bound of the stream is reached: not stored, told as what it is, and possible again later.
    @Test(arguments: [("max_msgs", 3), ("max_bytes", 400)])
    func aFullQueueRefuses(_ bound: String, _ value: Int) async throws {
        let server = try RealServer()
        let client = try await server.client()
        let stream = client.names.workQueueStream
        guard case .object(var config) = try await client.jetStream.streamInfo(stream).config else {
            Issue.record("the stream tells no configuration")
            return
        }
        config[bound] = .int(value)
        _ = try await client.jetStream.updateStream(.object(config))
        let submitter = Submitter(client.jetStream, names: client.names)
        let tasks = try (0..<20).map { Result<Submission, FatalError>.success(try submission("job-\($0)")) }
        var stored = 0
        var refused: [String] = []
        try await submitter.submit(tasks, patience: .seconds(30)) { submission, outcome in
            switch outcome {
            case .stored: stored += 1
            case .full(let why): refused.append(why)
            case .conflict, .refused, .unknown: Issue.record("\(submission.id): \(outcome)")
            }
        }
        #expect(stored > 0 && stored < 20)
        #expect(refused.count == 20 - stored)
        #expect(refused.allSatisfy { $0.hasPrefix("the queue is full (") })
        #expect(try await client.jetStream.streamInfo(stream).messages == UInt64(stored))
        // When there is room again the same submission is taken.
        _ = try await client.jetStream.deleteMessage(stream: stream, sequence: 1)
        let last = try submission("job-19")
        guard case .stored(_, false) = await submitter.submit(last, until: .now + .seconds(30)) else {
            Issue.record("it is still refused")
            return
        }
        await client.close()
    }

    @Test func aBadTaskEndsAFileAfterWhatStandsBeforeIt() async throws {
        let server = try RealServer()
        let client = try await server.client()
        let tasks: [Result<Submission, FatalError>] = [
            .success(try submission("a")), .failure(FatalError(.badTask, "x")), .success(try submission("b")),
        ]
        var stored: [String] = []
        let error = await #expect(throws: FatalError.self) {
            try await Submitter(client.jetStream, names: client.names)
                .submit(tasks, patience: .seconds(30)) { submission, _ in stored.append(submission.id.text) }
        }
        #expect(error?.message == "x")
        #expect(stored == ["a"])
        await client.close()
    }

    @Test func withoutStreamsTheFateIsUnknownAtTheDeadline() async throws {
        let server = try RealServer()
        let client = try await server.client(makingStreams: false)
        let outcome = await Submitter(client.jetStream, names: client.names)
            .submit(try submission("a"), until: .now + .milliseconds(300))
        guard case .unknown(let error) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(error.code == .noResponders)
        await client.close()
    }
}
