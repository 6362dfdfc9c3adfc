/// One operation on a server, with everything it needs to be done on a real one and on the model alike.
package enum StreamOperation: Sendable, Equatable {
    case publish(String, String, messageID: String?, expected: UInt64?)
    case last(stream: String, subject: String)
    case message(stream: String, sequence: UInt64)
    case next(stream: String, subject: String, from: UInt64)
    case delete(stream: String, sequence: UInt64)
    case state(stream: String)
    case makeConsumer(stream: String, ConsumerModel.Configuration)
    case deleteConsumer(stream: String, name: String)
    /// The next message that the consumer has now, if it has one and may send it.
    case pull(stream: String, name: String)
    /// What somebody says who was given the message, perhaps by an earlier consumer of that name. `again` is said only
    /// of what this consumer gave.
    case acknowledge(stream: String, name: String, sequence: UInt64, ServerModel<String>.Acknowledgement)
    /// Follow a stream's records and what changes, in order.
    case follow(stream: String)
    /// What a follower knows by now: the last sequence of each subject.
    case followed(stream: String)
    /// Listen to subjects like anybody, without the streams.
    case listen(String)
    /// What was heard since the last time one asked.
    case heard
    case wait(milliseconds: Int64)
    /// The server is killed and started again.
    case kill
}

/// What a consumer, or an earlier one of its name, has given to somebody.
package struct GivenMessages: Sendable {
    private struct Given: Sendable {
        var ever: Set<UInt64> = []
        var byThisConsumer: Set<UInt64> = []
    }
    private var streams: [String: Given] = [:]

    package init() {}

    package mutating func note(_ sequence: UInt64, of stream: String) {
        streams[stream, default: Given()].ever.insert(sequence)
        streams[stream, default: Given()].byThisConsumer.insert(sequence)
    }

    package mutating func forgetConsumer(of stream: String) { streams[stream]?.byThisConsumer = [] }

    package func allows(
        _ what: ServerModel<String>.Acknowledgement,
        _ sequence: UInt64,
        of stream: String
    ) -> Bool {
        guard case .again = what else { return streams[stream]?.ever.contains(sequence) ?? false }
        return streams[stream]?.byThisConsumer.contains(sequence) ?? false
    }
}

/// Runs operations on the model; an answer is a text that a real server's answer can be compared with.
package struct StreamScriptRunner {
    package private(set) var server: ServerModel<String>
    private var now: Int64 = 1_700_000_000_000_000_000
    private var given = GivenMessages()
    private var followed: [String: [String: UInt64]] = [:]
    private var listening: SubjectPattern?
    private var heard: [String] = []

    package init(version: ServerModel<String>.Version, streams: [StreamModel<String>.Configuration]) {
        server = ServerModel(version: version)
        for stream in streams { server.make(stream) }
    }

    package mutating func run(_ operation: StreamOperation) -> String {
        now += 1_000_000
        switch operation {
        case .publish(let subject, let body, let id, let expected):
            return publish(body, subject, id, expected)
        case .last(let stream, let subject): return Self.text(server[stream]?.last(of: subject))
        case .message(let stream, let sequence): return Self.text(server[stream]?.message(at: sequence))
        case .next(let stream, let subject, let from):
            return Self.text(server[stream]?.next(from: from, matching: SubjectPattern(subject)))
        case .delete(let stream, let sequence):
            return server.remove(sequence, from: stream, at: now) ? "deleted" : "nothing to delete"
        case .state(let stream): return state(of: stream)
        case .makeConsumer(let stream, let configuration):
            server.make(configuration, of: stream)
            return "made"
        case .deleteConsumer(let stream, let name):
            given.forgetConsumer(of: stream)
            return server.deleteConsumer(name, of: stream) ? "deleted" : "no consumer"
        case .pull(let stream, let name):
            guard let (delivery, message) = server.pull(name, of: stream, at: now) else { return "none" }
            given.note(message.sequence, of: stream)
            return "\(Self.text(message)) delivery \(delivery.count)"
        case .acknowledge(let stream, let name, let sequence, let what):
            guard given.allows(what, sequence, of: stream) else { return "not given" }
            server.acknowledge(sequence, what, to: name, of: stream, at: now)
            return "said"
        case .follow(let stream):
            followed[stream] = [:]
            return "following"
        case .followed(let stream):
            for message in server[stream]?.messages ?? [] { followed[stream]?[message.subject] = message.sequence }
            return Self.text(followed: followed[stream] ?? [:])
        case .listen(let subject):
            listening = SubjectPattern(subject)
            return "listening"
        case .heard:
            defer { heard = [] }
            return heard.joined(separator: " ")
        case .wait(let milliseconds):
            now += milliseconds * 1_000_000
            return "waited"
        case .kill: return "killed"
        }
    }

    /// What may have become of the server by a kill: removals lasted, or came undone.
    package func outcomesOfKill() -> [StreamScriptRunner] {
        [false, true].map { isUndone in
            var outcome = self
            outcome.server.restart(undoingRemovalsSince: 0, isUndone: { isUndone })
            return outcome
        }
    }

    private mutating func publish(_ body: String, _ subject: String, _ id: String?, _ expected: UInt64?) -> String {
        if listening?.matches(subject) == true { heard.append(body) }
        guard let (_, answer) = server.publish(body, to: subject, messageID: id, expected: expected, at: now) else {
            return "no stream"
        }
        switch answer {
        case .stored(let sequence, let isDuplicate): return "stored \(sequence)\(isDuplicate ? " duplicate" : "")"
        case .wrongLastSequence: return "refused 10071"
        case .full: return "refused 10077"
        }
    }

    private func state(of stream: String) -> String {
        guard let model = server[stream] else { return "no stream" }
        return "messages \(model.messages.count) last \(model.lastSequence)"
    }

    package static func text(sequence: UInt64, subject: String, body: String) -> String {
        "\(sequence) \(subject) \(body)"
    }

    package static func text(followed: [String: UInt64]) -> String {
        followed.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
    }

    private static func text(_ message: StreamModel<String>.Message?) -> String {
        message.map { text(sequence: $0.sequence, subject: $0.subject, body: $0.body) } ?? "none"
    }
}
