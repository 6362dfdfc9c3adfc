/// A durable pull consumer with explicit acks, as its server keeps it.
package struct ConsumerModel: Sendable {
    package struct Configuration: Sendable, Equatable {
        package var name: String
        package var filter: SubjectPattern
        /// In nanoseconds, as all times here.
        package var ackWait: Int64
        package var maxAckPending: Int

        package init(name: String, filter: String, ackWait: Int64, maxAckPending: Int = 1000) {
            self.name = name
            self.filter = SubjectPattern(filter)
            self.ackWait = ackWait
            self.maxAckPending = maxAckPending
        }
    }

    package struct Delivery: Equatable, Sendable {
        package let sequence: UInt64
        /// 1 for the first time.
        package let count: Int
    }

    private struct Pending {
        /// When the message is due again if nobody says anything about it.
        var deadline: Int64
    }

    package let configuration: Configuration
    private var nextSequence: UInt64 = 1
    private var pending: [UInt64: Pending] = [:]
    private var redelivery: [UInt64] = []
    private var counts: [UInt64: Int] = [:]

    package init(_ configuration: Configuration) { self.configuration = configuration }

    /// Messages delivered and not acknowledged.
    package var pendingCount: Int { pending.count }

    /// When a delivered message becomes due again, if one does.
    package var nextDeadline: Int64? {
        pending.filter { !redelivery.contains($0.key) }.values.map(\.deadline).min()
    }

    /// The next message to send, if there is one: what is due again comes before what is new.
    package mutating func take<Body: Sendable>(from stream: StreamModel<Body>, at now: Int64) -> Delivery? {
        expire(at: now)
        while !redelivery.isEmpty {
            let sequence = redelivery.removeFirst()
            guard stream.message(at: sequence) != nil else {
                pending[sequence] = nil
                continue
            }
            return deliver(sequence, at: now)
        }
        guard pending.count < configuration.maxAckPending,
            let message = stream.next(from: nextSequence, matching: configuration.filter)
        else { return nil }
        nextSequence = message.sequence + 1
        return deliver(message.sequence, at: now)
    }

    private mutating func deliver(_ sequence: UInt64, at now: Int64) -> Delivery {
        pending[sequence] = Pending(deadline: now + configuration.ackWait)
        counts[sequence, default: 0] += 1
        return Delivery(sequence: sequence, count: counts[sequence] ?? 1)
    }

    private mutating func expire(at now: Int64) {
        let due = pending.filter { $0.value.deadline <= now }.keys.sorted()
        redelivery += due.filter { !redelivery.contains($0) }
    }

    /// What a receiver says is matched by the stream sequence alone: anybody who held the message may say it.
    package mutating func acknowledge(_ sequence: UInt64) {
        pending[sequence] = nil
        counts[sequence] = nil
        redelivery.removeAll { $0 == sequence }
    }

    /// Deliver again, at once or after a delay.
    package mutating func refuse(_ sequence: UInt64, delay: Int64?, at now: Int64) {
        guard pending[sequence] != nil, !redelivery.contains(sequence) else { return }
        if let delay {
            pending[sequence]?.deadline = now + delay
        } else {
            redelivery.append(sequence)
        }
    }

    package mutating func postpone(_ sequence: UInt64, at now: Int64) {
        if pending[sequence] != nil { pending[sequence]?.deadline = now + configuration.ackWait }
    }

    /// Whether an ack of this message is heard at all.
    package func hasDelivered(_ sequence: UInt64) -> Bool { sequence < nextSequence }
}
