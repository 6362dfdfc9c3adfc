/// Where a delivered message stands in its stream and its consumer; it travels in the subject that acks go to.
package struct MessageMetadata: Sendable, Equatable {
    package let stream: String
    package let consumer: String
    /// 1 for the first delivery, counted by the server.
    package let deliveryCount: UInt64
    package let streamSequence: UInt64
    package let consumerSequence: UInt64
    /// When the server stored the message, in nanoseconds since 1970.
    package let timestamp: Int64
    /// Messages that wait for delivery behind this one; a hint, not a promise.
    package let pending: UInt64

    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or the longer
    /// form with a domain and an account hash after `ACK`. Nil for any other subject.
    init?(ackSubject: String) {
        // By bytes: every message that comes has one, and splitting text by characters takes several times as long.
        let tokens = Array(ackSubject.utf8).split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard tokens.count >= 9, tokens[0].elementsEqual("$JS".utf8), tokens[1].elementsEqual("ACK".utf8) else {
            return nil
        }
        let first = tokens.count == 9 ? 2 : 4
        guard tokens.count >= first + 7, let delivered = Self.number(tokens[first + 2]),
            let streamSequence = Self.number(tokens[first + 3]), let consumerSequence = Self.number(tokens[first + 4]),
            let timestamp = Self.number(tokens[first + 5]).flatMap({ Int64(exactly: $0) }),
            let pending = Self.number(tokens[first + 6])
        else { return nil }
        stream = String(decoding: tokens[first], as: UTF8.self)
        consumer = String(decoding: tokens[first + 1], as: UTF8.self)
        deliveryCount = delivered
        self.streamSequence = streamSequence
        self.consumerSequence = consumerSequence
        self.timestamp = timestamp
        self.pending = pending
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
        guard !digits.isEmpty else { return nil }
        var value: UInt64 = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            let (tens, isTooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflows) = tens.addingReportingOverflow(UInt64(digit - UInt8(ascii: "0")))
            if isTooLarge || overflows { return nil }
            value = sum
        }
        return value
    }
}

/// A message that a consumer delivered and that waits for an ack.
///
/// Acks, naks and the others match only the stream sequence on the server: whoever held the message before can ack
/// it for whoever holds it now. Without an answer they can be lost: the message then comes again.
package struct JetStreamMessage: Sendable {
    package let subject: String
    package let payload: [UInt8]
    package let headers: NATSHeaders
    package let metadata: MessageMetadata
    /// Where acks go; it may be kept, and used after the message object is gone.
    package let ackSubject: String
    private let connection: NATSConnection

    /// Nil if the message does not come from a consumer.
    init?(_ message: RawMessage, connection: NATSConnection) {
        guard let ackSubject = message.replySubject, let metadata = MessageMetadata(ackSubject: ackSubject) else {
            return nil
        }
        let copy = message.copy()
        subject = copy.subject
        payload = copy.payload
        headers = copy.headers
        self.metadata = metadata
        self.ackSubject = ackSubject
        self.connection = connection
    }

    /// Done: the message is not delivered again. Throws what ``NATSConnection/publish`` throws.
    package func ack() throws(NATSError) { try connection.acknowledge(ackSubject, .ack) }

    /// Not done: deliver it again, at once or after a delay.
    package func nak(delay: Duration? = nil) throws(NATSError) {
        try connection.acknowledge(ackSubject, .nak(delay: delay))
    }

    /// Still at work: the ack wait starts anew.
    package func inProgress() throws(NATSError) { try connection.acknowledge(ackSubject, .inProgress) }

    /// Never deliver it again, done or not.
    package func term() throws(NATSError) { try connection.acknowledge(ackSubject, .term) }

    /// Acks and waits until the server says that it has taken it.
    package func ackSync(deadline: Duration) async throws(NATSError) {
        _ = try await connection.ask(Acknowledgement.ack.bytes, to: ackSubject, deadline: deadline)
    }
}

/// What a receiver says about a delivered message.
package enum Acknowledgement: Sendable, Equatable {
    case ack
    case nak(delay: Duration?)
    case inProgress
    case term

    var bytes: [UInt8] {
        switch self {
        case .ack: Array("+ACK".utf8)
        case .nak(nil): Array("-NAK".utf8)
        case .nak(let delay?): Array("-NAK {\"delay\":\(delay.wholeNanoseconds)}".utf8)
        case .inProgress: Array("+WPI".utf8)
        case .term: Array("+TERM".utf8)
        }
    }
}

extension NATSConnection {
    /// Says something about a delivered message by the subject that it came with.
    package func acknowledge(_ ackSubject: String, _ what: Acknowledgement) throws(NATSError) {
        try publish(what.bytes, to: ackSubject)
    }
}
