import ClusterSimulation
import WireJSON

@testable import NATSClient

/// Does the operations of a script on a real server.
final class RealScriptRunner {
    private let server: TestServer
    private let jetStream: JetStream
    let version: ServerModel<String>.Version
    private var given = GivenMessages()
    /// Where what is said about a message goes, by stream and sequence.
    private var replies: [String: [UInt64: String]] = [:]
    private struct Follower {
        let consumer: OrderedConsumer
        let seen: Collector<StoredMessage>
    }
    private var followers: [String: Follower] = [:]
    private var listener: NATSSubscription?
    private let heard = Collector<String>()
    private var told = 0

    init(_ server: TestServer) async throws {
        self.server = server
        jetStream = JetStream(try await server.connect(), deadline: .seconds(60))
        try await jetStream.waitUntilReady()
        // Servers from 2.11 tell an API level in the account information.
        version = try await jetStream.accountInfo()["api"]?["level"]?.intValue ?? 0 > 0 ? .recent : .old
        for stream in ScriptStreams.configurations { _ = try await jetStream.createOrCheckStream(Self.json(stream)) }
    }

    func close() async { await jetStream.connection.close() }

    private static func json(_ stream: StreamModel<String>.Configuration) -> JSON {
        var json: JSONObject = [
            "name": .string(stream.name), "subjects": .array(stream.subjects.map { .string($0.text) }),
            "storage": "file", "retention": stream.isWorkQueue ? "workqueue" : "limits",
            "discard": stream.discardsNew ? "new" : "old",
            "duplicate_window": .int(stream.duplicateWindow),
        ]
        if let limit = stream.maxPerSubject { json["max_msgs_per_subject"] = .int(limit) }
        if let limit = stream.maxMessages { json["max_msgs"] = .int(limit) }
        return .object(json)
    }

    func run(_ operation: StreamOperation, isNothingExpected: Bool) async throws -> String {
        switch operation {
        case .publish(let subject, let body, let id, let expected):
            return Self.text(
                await jetStream.publish(
                    bytes(body),
                    to: subject,
                    messageID: id,
                    expectedLastSubjectSequence: expected
                )
            )
        case .last(let stream, let subject):
            return Self.text(try await jetStream.lastMessage(stream: stream, subject: subject))
        case .message(let stream, let sequence):
            return Self.text(try await jetStream.message(stream: stream, sequence: sequence))
        case .next(let stream, let subject, let from):
            return Self.text(try await jetStream.nextMessage(stream: stream, subject: subject, from: from))
        case .delete(let stream, let sequence):
            return try await jetStream.deleteMessage(stream: stream, sequence: sequence)
                ? "deleted" : "nothing to delete"
        case .state(let stream):
            let info = try await jetStream.streamInfo(stream)
            return "messages \(info.messages) last \(info.lastSequence)"
        case .makeConsumer(let stream, let configuration):
            _ = try await jetStream.createConsumer(stream: stream, Self.json(configuration))
            return "made"
        case .deleteConsumer(let stream, let name):
            given.forgetConsumer(of: stream)
            return try await jetStream.deleteConsumer(stream: stream, name) ? "deleted" : "no consumer"
        case .pull(let stream, let name): return try await pull(stream, name, patience: isNothingExpected ? 60 : 10_000)
        case .acknowledge(let stream, _, let sequence, let what):
            return try await acknowledge(stream, sequence, what)
        case .follow(let stream):
            followers[stream] = try follower(of: stream)
            return "following"
        case .followed(let stream): return await followed(stream)
        case .listen(let subject):
            listener = try jetStream.connection.subscribe(subject) { [heard] message in
                heard.add(String(decoding: message.payload, as: UTF8.self))
            }
            return "listening"
        case .heard:
            // Answered behind what was heard, on the same connection.
            _ = try await jetStream.accountInfo()
            defer { told = heard.values.count }
            return heard.values.dropFirst(told).joined(separator: " ")
        case .wait(let milliseconds):
            try await Task.sleep(for: .milliseconds(milliseconds))
            return "waited"
        case .kill: return try await kill()
        }
    }

    private static func json(_ consumer: ConsumerModel.Configuration) -> JSON {
        [
            "durable_name": .string(consumer.name), "ack_policy": "explicit", "deliver_policy": "all",
            "ack_wait": .int(consumer.ackWait), "max_deliver": -1, "max_ack_pending": .int(consumer.maxAckPending),
            "filter_subject": .string(consumer.filter.text),
        ]
    }

    private func follower(of stream: String) throws -> Follower {
        let seen = Collector<StoredMessage>()
        let consumer = try OrderedConsumer(jetStream, stream: stream) { event in
            if case .message(let message, _) = event { seen.add(message) }
        }
        return Follower(consumer: consumer, seen: seen)
    }

    private func followed(_ stream: String) async -> String {
        guard let follower = followers[stream],
            let last = try? await jetStream.lastMessage(stream: stream, subject: ">")?.sequence
        else { return "nothing to follow" }
        guard await follower.seen.wait(until: { $0.last?.sequence ?? 0 >= last }) else { return "fell behind" }
        var known: [String: UInt64] = [:]
        for message in follower.seen.values { known[message.subject] = message.sequence }
        return StreamScriptRunner.text(followed: known)
    }

    /// - Parameter patience: how long the request stands, in milliseconds. Not `no_wait`: where messages are held back
    ///   for want of acks, 2.9.10 does not answer that at all.
    private func pull(_ stream: String, _ name: String, patience: Int) async throws -> String {
        let inbox = "_INBOX.\(RandomToken.make())"
        let (answers, continuation) = AsyncStream.makeStream(of: NATSMessage.self)
        let subscription = try jetStream.connection.subscribe(inbox) { continuation.yield($0) }
        defer { subscription.cancel() }
        try jetStream.connection.publish(
            JSON.object(["batch": 1, "expires": .int(patience * 1_000_000)]).encoded(),
            to: "$JS.API.CONSUMER.MSG.NEXT.\(stream).\(name)",
            replySubject: inbox
        )
        guard let answer = await answers.first(where: { _ in true }) else { return "closed" }
        guard answer.status == nil, let reply = answer.replySubject,
            let metadata = MessageMetadata(ackSubject: reply)
        else { return "none" }
        given.note(metadata.streamSequence, of: stream)
        replies[stream, default: [:]][metadata.streamSequence] = reply
        let text = StreamScriptRunner.text(
            sequence: metadata.streamSequence,
            subject: answer.subject,
            body: String(decoding: answer.payload, as: UTF8.self)
        )
        return "\(text) delivery \(metadata.deliveryCount)"
    }

    private func acknowledge(
        _ stream: String,
        _ sequence: UInt64,
        _ what: ServerModel<String>.Acknowledgement
    ) async throws -> String {
        guard given.allows(what, sequence, of: stream), let reply = replies[stream]?[sequence] else {
            return "not given"
        }
        let said: Acknowledgement =
            switch what {
            case .done: .ack
            case .again(let delay): .nak(delay: delay.map { .nanoseconds($0) })
            case .inProgress: .inProgress
            case .never: .term
            }
        do throws(NATSError) {
            _ = try await jetStream.connection.request(said.bytes, to: reply, deadline: .milliseconds(500))
        } catch {
            // There is no consumer by now, and so nobody who listens; or a recent server passes over in silence what is
            // said of a message that its consumer has not given to anybody.
            guard error.code == .noResponders || error.code == .timeout else { throw error }
        }
        return "said"
    }

    private func kill() async throws -> String {
        server.kill()
        try server.start()
        try await jetStream.connection.waitUntilConnected(deadline: .seconds(60))
        try await jetStream.waitUntilReady()
        return "killed"
    }

    private static func text(_ outcome: PublishOutcome) -> String {
        switch outcome {
        case .stored(let ack): "stored \(ack.sequence)\(ack.isDuplicate ? " duplicate" : "")"
        case .refused(let error): "refused \(error.errorCode)"
        case .unknown(let error): "unknown \(error)"
        }
    }

    private static func text(_ message: StoredMessage?) -> String {
        message.map {
            StreamScriptRunner.text(
                sequence: $0.sequence,
                subject: $0.subject,
                body: String(decoding: $0.payload, as: UTF8.self)
            )
        } ?? "none"
    }
}
