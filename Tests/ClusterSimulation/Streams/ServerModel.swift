/// The streams and durable consumers of one nats-server: a value without I/O or clock.
package struct ServerModel<Body: Sendable>: Sendable {
    /// The servers that this system is held to.
    package enum Version: String, Sendable, CaseIterable {
        /// 2.9.10, of Debian 12.
        case old
        /// 2.11 and later.
        case recent
    }

    package let version: Version
    private var streams: [String: StreamModel<Body>] = [:]
    /// The names of the streams, in the order in which they were made.
    package private(set) var streamNames: [String] = []
    private var consumers: [String: [String: ConsumerModel]] = [:]

    package init(version: Version) { self.version = version }

    package subscript(_ stream: String) -> StreamModel<Body>? { streams[stream] }

    package mutating func make(_ configuration: StreamModel<Body>.Configuration) {
        guard streams[configuration.name] == nil else { return }
        streams[configuration.name] = StreamModel(configuration)
        streamNames.append(configuration.name)
    }

    /// The stream that stores what is published on a subject.
    package func stream(taking subject: String) -> String? {
        streamNames.first { streams[$0]?.takes(subject) ?? false }
    }

    // MARK: messages

    package mutating func publish(
        _ body: Body,
        to subject: String,
        messageID: String? = nil,
        expected: UInt64? = nil,
        at now: Int64
    ) -> (stream: String, answer: StreamModel<Body>.Answer)? {
        guard let name = stream(taking: subject),
            let answer = streams[name]?.publish(
                body,
                to: subject,
                messageID: messageID,
                expected: expected,
                at: now
            )
        else { return nil }
        return (name, answer)
    }

    /// Deletes a message. False if there is none.
    package mutating func remove(_ sequence: UInt64, from stream: String, at now: Int64) -> Bool {
        guard streams[stream]?.remove(sequence, at: now) == true else { return false }
        for name in (consumers[stream] ?? [:]).keys { consumers[stream]?[name]?.acknowledge(sequence) }
        return true
    }

    // MARK: consumers

    package func consumer(_ name: String, of stream: String) -> ConsumerModel? { consumers[stream]?[name] }

    package mutating func make(_ configuration: ConsumerModel.Configuration, of stream: String) {
        guard consumers[stream]?[configuration.name] == nil else { return }
        consumers[stream, default: [:]][configuration.name] = ConsumerModel(configuration)
    }

    /// False if there is none.
    package mutating func deleteConsumer(_ name: String, of stream: String) -> Bool {
        consumers[stream]?.removeValue(forKey: name) != nil
    }

    package mutating func pull(
        _ name: String,
        of stream: String,
        at now: Int64
    ) -> (delivery: ConsumerModel.Delivery, message: StreamModel<Body>.Message)? {
        guard let model = streams[stream], let delivery = consumers[stream]?[name]?.take(from: model, at: now),
            let message = model.message(at: delivery.sequence)
        else { return nil }
        return (delivery, message)
    }

    /// What a receiver says about a message.
    package enum Acknowledgement: Sendable, Equatable {
        case done
        case again(delay: Int64?)
        case inProgress
        case never
    }

    package mutating func acknowledge(
        _ sequence: UInt64,
        _ what: Acknowledgement,
        to name: String,
        of stream: String,
        at now: Int64
    ) {
        guard let consumer = consumers[stream]?[name] else { return }
        switch what {
        case .done, .never:
            if version == .recent, !consumer.hasDelivered(sequence) { return }
            consumers[stream]?[name]?.acknowledge(sequence)
            if streams[stream]?.configuration.isWorkQueue == true { _ = remove(sequence, from: stream, at: now) }
        case .again(let delay): consumers[stream]?[name]?.refuse(sequence, delay: delay, at: now)
        case .inProgress: consumers[stream]?[name]?.postpone(sequence, at: now)
        }
    }

    // MARK: crashes

    package mutating func setOutOfSpace(_ isOut: Bool, _ stream: String) { streams[stream]?.isOutOfSpace = isOut }

    package mutating func sync(_ stream: String) { streams[stream]?.sync() }

    /// The process was killed, and starts again.
    package mutating func restart(undoingRemovalsSince horizon: Int64, isUndone: () -> Bool) {
        for name in streamNames {
            streams[name]?.restart(undoingRemovalsSince: horizon, isUndone: isUndone)
        }
    }

    /// The power was cut, and one stream has lost its newest changes.
    package mutating func rollBack(_ stream: String, changes: Int) { streams[stream]?.rollBack(changes: changes) }
}
