import WireJSON

/// A consumer as the server describes it.
package struct ConsumerInfo: Sendable, Equatable {
    package let stream: String
    package let name: String
    /// The whole configuration in the server's words.
    package let config: JSON
    /// The stream sequence of the last message that was delivered, and of the one below which all are acknowledged.
    package let deliveredStreamSequence: UInt64
    package let ackFloorStreamSequence: UInt64
    /// Messages delivered and not acknowledged yet.
    package let ackPending: Int
    /// Messages not delivered yet.
    package let pending: UInt64
    /// Pull requests that wait for messages.
    package let waiting: Int

    package init?(_ json: JSON) {
        guard let stream = json["stream_name"]?.stringValue, let name = json["name"]?.stringValue,
            let config = json["config"]
        else { return nil }
        self.stream = stream
        self.name = name
        self.config = config
        deliveredStreamSequence = json["delivered"]?["stream_seq"]?.unsignedValue ?? 0
        ackFloorStreamSequence = json["ack_floor"]?["stream_seq"]?.unsignedValue ?? 0
        ackPending = Int(json["num_ack_pending"]?.intValue ?? 0)
        pending = json["num_pending"]?.unsignedValue ?? 0
        waiting = Int(json["num_waiting"]?.intValue ?? 0)
    }
}

extension JetStream {
    /// Creates a consumer, durable if its configuration has `durable_name`, and makes sure that the server runs every
    /// field as asked.
    ///
    /// - Parameter config: the fields of the API's consumer configuration; durations in nanoseconds.
    /// - Throws: `configurationDiffers` if the consumer stands with other settings.
    package func createConsumer(stream: String, _ config: JSON) async throws(JetStreamError) -> ConsumerInfo {
        try checkToken(stream, "create consumer")
        var verb = "CONSUMER.CREATE.\(stream)"
        if let durable = config["durable_name"]?.stringValue {
            try checkToken(durable, "create consumer")
            verb = "CONSUMER.DURABLE.CREATE.\(stream).\(durable)"
        }
        let json = try await request(verb, ["stream_name": .string(stream), "config": config])
        guard let info = ConsumerInfo(json) else { throw protocolError("create consumer", stream) }
        let differences = ConfigurationDifference.between(asked: config, actual: info.config)
        if !differences.isEmpty {
            throw .configurationDiffers(object: "consumer \(info.name) of \(stream)", differences)
        }
        return info
    }

    /// Deletes a durable consumer if it exists and creates it again: it starts with all messages that its stream
    /// still holds.
    package func recreateConsumer(stream: String, _ config: JSON) async throws(JetStreamError) -> ConsumerInfo {
        if let durable = config["durable_name"]?.stringValue { _ = try await deleteConsumer(stream: stream, durable) }
        return try await createConsumer(stream: stream, config)
    }

    /// Throws refused with `isConsumerNotFound` if there is none.
    package func consumerInfo(stream: String, _ name: String) async throws(JetStreamError) -> ConsumerInfo {
        try checkToken(stream, "consumer info")
        try checkToken(name, "consumer info")
        guard let info = ConsumerInfo(try await request("CONSUMER.INFO.\(stream).\(name)")) else {
            throw protocolError("consumer info", name)
        }
        return info
    }

    /// All consumers of a stream, also those that are not durable.
    package func consumers(stream: String) async throws(JetStreamError) -> [ConsumerInfo] {
        try checkToken(stream, "list consumers")
        var consumers: [ConsumerInfo] = []
        while true {
            let page = try await request("CONSUMER.LIST.\(stream)", ["offset": .int(consumers.count)])
            let found = (page["consumers"]?.arrayValue ?? []).compactMap { ConsumerInfo($0) }
            consumers += found
            if found.isEmpty || consumers.count >= Int(page["total"]?.intValue ?? 0) { return consumers }
        }
    }

    /// False if there was none.
    package func deleteConsumer(stream: String, _ name: String) async throws(JetStreamError) -> Bool {
        try checkToken(stream, "delete consumer")
        try checkToken(name, "delete consumer")
        do throws(JetStreamError) {
            return try await request("CONSUMER.DELETE.\(stream).\(name)")["success"]?.boolValue ?? false
        } catch .refused(let error) where error.isConsumerNotFound || error.isStreamNotFound {
            return false
        }
    }
}
