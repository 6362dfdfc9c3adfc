import JobModel

/// The streams that scripts work on: one of each kind that the pool has.
package enum ScriptStreams {
    /// One record per subject, like ORG_JOBS and ORG_CTL.
    package static let records = "RECORDS"
    /// Like ORG_WQ and ORG_RUN.
    package static let queue = "QUEUE"
    /// A full work queue refuses.
    package static let bounded = "BOUNDED"
    /// A full record stream refuses new subjects.
    package static let fewRecords = "FEW"
    /// A full history drops its oldest, like ORG_EVENTS.
    package static let history = "HISTORY"
    /// Forgets message ids after two seconds.
    package static let forgetful = "FORGETFUL"

    package static var configurations: [StreamModel<String>.Configuration] {
        [records, queue, bounded, fewRecords, history, forgetful].map { name in
            var stream = StreamModel<String>.Configuration(name: name, subjects: ["\(name.lowercased()).*"])
            stream.isWorkQueue = name == queue || name == bounded
            stream.discardsNew = name != history
            if name == records || name == fewRecords { stream.maxPerSubject = 1 }
            if name == forgetful { stream.duplicateWindow = 2_000_000_000 }
            if name == bounded || name == fewRecords || name == history { stream.maxMessages = 6 }
            return stream
        }
    }

    package static func subject(_ stream: String, _ token: String) -> String { "\(stream.lowercased()).\(token)" }
}

extension StreamOperation {
    /// A script from a seed: operations that mean something to the streams as they are likely to stand by then.
    package static func random(seed: UInt64, count: Int) -> [StreamOperation] {
        var maker = RandomScript(chance: IdentifierSource(seed: seed))
        var script = [ScriptStreams.queue, ScriptStreams.bounded].map { maker.makeConsumer(of: $0) }
        while script.count < count {
            let operation = maker.next()
            script.append(operation)
            // An old server does not answer who pulls from no consumer.
            if case .deleteConsumer(let stream, _) = operation { script.append(maker.makeConsumer(of: stream)) }
        }
        return script
    }
}

private struct RandomScript {
    var chance: IdentifierSource
    var published: UInt64 = 0

    private static let streams = [
        ScriptStreams.records, ScriptStreams.queue, ScriptStreams.bounded, ScriptStreams.fewRecords,
        ScriptStreams.history,
    ]

    func makeConsumer(of stream: String) -> StreamOperation {
        .makeConsumer(
            stream: stream,
            ConsumerModel.Configuration(
                name: "C",
                filter: ScriptStreams.subject(stream, "*"),
                ackWait: 600_000_000_000,
                maxAckPending: 5
            )
        )
    }

    mutating func next() -> StreamOperation {
        let stream = Self.streams[Int.random(in: 0..<Self.streams.count, using: &chance)]
        let subject = ScriptStreams.subject(
            stream,
            ["a", "b", "c", "d", "e", "f", "g"].randomElement(using: &chance) ?? "a"
        )
        let sequence = UInt64.random(in: 1...max(2, published / 4), using: &chance)
        let queue = Bool.random(using: &chance) ? ScriptStreams.queue : ScriptStreams.bounded
        switch Int.random(in: 0..<20, using: &chance) {
        case 0..<7: return publish(subject, sequence)
        case 7 where published % 8 == 0: return .deleteConsumer(stream: queue, name: "C")
        // On a work queue 2.9.10 loses sight of a subject's last message when others of it were removed.
        case 7 where stream != ScriptStreams.queue && stream != ScriptStreams.bounded:
            return .last(stream: stream, subject: subject)
        case 8: return .message(stream: stream, sequence: sequence)
        case 9: return .next(stream: stream, subject: subject, from: sequence)
        case 10: return .delete(stream: stream, sequence: sequence)
        case 11: return .state(stream: stream)
        case 12..<16: return .pull(stream: queue, name: "C")
        case 16: return acknowledge(queue, sequence, .again(delay: nil))
        case 17: return acknowledge(queue, sequence, Bool.random(using: &chance) ? .inProgress : .never)
        default: return acknowledge(queue, sequence, .done)
        }
    }

    private func acknowledge(
        _ stream: String,
        _ sequence: UInt64,
        _ what: ServerModel<String>.Acknowledgement
    ) -> StreamOperation {
        .acknowledge(stream: stream, name: "C", sequence: sequence, what)
    }

    private mutating func publish(_ subject: String, _ sequence: UInt64) -> StreamOperation {
        published += 1
        let isRecord = subject.hasPrefix("records") || subject.hasPrefix("few") || subject.hasPrefix("history")
        // Not on a work queue, for the same reason; this system expects no sequences there.
        let expected: UInt64? =
            switch Int.random(in: 0..<4, using: &chance) {
            case 0 where isRecord: 0
            case 1 where isRecord: sequence
            default: nil
            }
        // Servers differ in which of the two they look at first; nobody here sends both.
        let hasID = expected == nil && Int.random(in: 0..<3, using: &chance) == 0
        let id = hasID ? "id:\(sequence % 12)" : nil
        return .publish(subject, "body-\(published)", messageID: id, expected: expected)
    }
}
