/// The server's promise that a message is stored.
package struct PublishAck: Sendable, Equatable {
    package let stream: String
    /// The sequence of the message; of the first copy if this is a duplicate.
    package let sequence: UInt64
    /// The message id was seen before within the duplicate window: nothing new was stored.
    package let isDuplicate: Bool

    package init(stream: String, sequence: UInt64, isDuplicate: Bool) {
        self.stream = stream
        self.sequence = sequence
        self.isDuplicate = isDuplicate
    }
}

/// How a publish to a stream ended.
package enum PublishOutcome: Sendable, Equatable {
    case stored(PublishAck)
    /// Not stored, and it will not be.
    case refused(JetStreamAPIError)
    /// Nobody can tell: it may be stored, or may yet be. Send the identical write again.
    case unknown(NATSError)
}

/// How a compare-and-set ended.
package enum CompareAndSetOutcome: Sendable, Equatable {
    /// Ours stands, at this sequence.
    case stored(sequence: UInt64)
    /// Another write came first; the record as it is now, nil if there is none.
    case conflict(StoredMessage?)
    /// Refused for another reason than a conflict.
    case refused(JetStreamAPIError)
    /// The time was up before the outcome was known: the write may be stored, or may yet be.
    case unknown(NATSError)
}
