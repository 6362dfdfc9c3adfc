import ClusterSimulation
import Testing

@testable import NATSClient

/// Holds the streams of the cluster simulation to what a real server answers.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct StreamConformanceTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func randomScripts(seed: UInt64) async throws {
        try await compare(StreamOperation.random(seed: seed, count: 800))
    }

    @Test func ackWaitAndDelays() async throws {
        let (queue, other) = (ScriptStreams.queue, ScriptStreams.bounded)
        func consumer(_ stream: String, ackWait: Int64) -> StreamOperation {
            .makeConsumer(
                stream: stream,
                ConsumerModel.Configuration(
                    name: "C",
                    filter: ScriptStreams.subject(stream, "*"),
                    ackWait: ackWait
                )
            )
        }
        func publish(_ stream: String, _ body: String) -> StreamOperation {
            .publish(ScriptStreams.subject(stream, "a"), body, messageID: nil, expected: nil)
        }
        func say(_ what: ServerModel<String>.Acknowledgement, _ stream: String, _ sequence: UInt64) -> StreamOperation {
            .acknowledge(stream: stream, name: "C", sequence: sequence, what)
        }
        func pull(_ stream: String) -> StreamOperation { .pull(stream: stream, name: "C") }
        try await compare([
            consumer(queue, ackWait: 4_000_000_000), consumer(other, ackWait: 600_000_000_000),
            publish(queue, "one"), publish(queue, "two"), publish(other, "three"), publish(other, "four"),
            pull(queue), pull(queue), pull(other), pull(other), pull(other),
            say(.again(delay: 2_000_000_000), other, 1), say(.again(delay: nil), other, 2), pull(other), pull(other),
            .wait(milliseconds: 2500), say(.inProgress, queue, 1), .wait(milliseconds: 2500),
            // Only the message of which nobody said anything is due again.
            pull(queue), pull(queue), pull(other), pull(other),
            // Who was given the message first acknowledges it for whoever has it now.
            say(.done, queue, 2), .wait(milliseconds: 5000), pull(queue), pull(queue), .state(stream: queue),
        ])
    }

    @Test func whatIsForgotten() async throws {
        let (queue, forgetful) = (ScriptStreams.queue, ScriptStreams.forgetful)
        func publish(_ stream: String, _ body: String, _ id: String) -> StreamOperation {
            .publish(ScriptStreams.subject(stream, "a"), body, messageID: id, expected: nil)
        }
        try await compare([
            .makeConsumer(
                stream: queue,
                ConsumerModel.Configuration(
                    name: "C",
                    filter: ScriptStreams.subject(queue, "*"),
                    ackWait: 600_000_000_000
                )
            ),
            publish(forgetful, "one", "x"), publish(forgetful, "one", "x"),
            publish(queue, "one", "x"), publish(queue, "two", "y"), .pull(stream: queue, name: "C"),
            .acknowledge(stream: queue, name: "C", sequence: 1, .done), publish(queue, "one", "x"),
            .wait(milliseconds: 5000), publish(forgetful, "one", "x"), .kill, .state(stream: queue),
            .message(stream: queue, sequence: 1),
            // A server that starts knows the ids of what it still holds, and no others.
            publish(queue, "two", "y"), publish(queue, "one", "x"), .state(stream: queue), .state(stream: forgetful),
        ])
    }

    @Test func followersAndListeners() async throws {
        let records = ScriptStreams.records
        func publish(_ token: String, _ body: String, expected: UInt64? = nil) -> StreamOperation {
            .publish(ScriptStreams.subject(records, token), body, messageID: nil, expected: expected)
        }
        try await compare([
            publish("a", "one"), publish("b", "two"), publish("a", "three"), .follow(stream: records),
            .followed(stream: records), .listen(ScriptStreams.subject(records, "*")),
            publish("a", "four", expected: 3), publish("c", "five", expected: 0), .followed(stream: records), .heard,
            // Refused, and heard by plain subscribers all the same.
            publish("a", "six", expected: 3), publish("b", "seven", expected: 0), .heard, .followed(stream: records),
            .kill, publish("b", "eight", expected: 2), .followed(stream: records), .heard,
        ])
    }

    /// Runs a script on both; every answer must be one that the model can give.
    private func compare(_ script: [StreamOperation]) async throws {
        let server = try TestServer()
        let real = try await RealScriptRunner(server)
        var models = [StreamScriptRunner(version: real.version, streams: ScriptStreams.configurations)]
        var trail: [String] = []
        for (step, operation) in script.enumerated() {
            var answers = models.indices.map { models[$0].run(operation) }
            let answer = try await real.run(operation, isNothingExpected: answers.allSatisfy { $0 == "none" })
            trail.append("\(step) \(operation): \(answer)")
            models = zip(models, answers).filter { $0.1 == answer }.map(\.0)
            if operation == .kill { models = models.flatMap { $0.outcomesOfKill() } }
            guard models.isEmpty else { continue }
            answers = Set(answers).sorted()
            let before = trail.suffix(30).joined(separator: "\n")
            Issue.record("step \(step): the model says \(answers) on \(real.version.rawValue)\n\(before)")
            break
        }
        await real.close()
    }
}
