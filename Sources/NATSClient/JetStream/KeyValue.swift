import WireJSON

/// A bucket of keys with values, kept in a stream by the conventions of all NATS clients: stream `KV_<bucket>`,
/// subjects `$KV.<bucket>.<key>`, a header for deletions. A key's revision is the stream sequence of its last write.
package struct KeyValue: Sendable {
    package let bucket: String
    package let jetStream: JetStream
    private var stream: String { "KV_\(bucket)" }
    private var prefix: String { "$KV.\(bucket)." }

    /// A bucket that exists or will; nothing is sent.
    ///
    /// - Throws: `badSubject` if the name is not one token.
    package init(_ jetStream: JetStream, bucket: String) throws(NATSError) {
        try Subject.checkToken(bucket, "key-value bucket")
        self.jetStream = jetStream
        self.bucket = bucket
    }

    /// Creates the bucket's stream, or checks the one that exists.
    ///
    /// - Parameter history: how many values of a key are kept, 1 to 64.
    package func createOrCheck(history: Int = 1, storage: String = "file") async throws(JetStreamError) {
        _ = try await jetStream.createOrCheckStream([
            "name": .string(stream), "subjects": [.string(prefix + ">")], "storage": .string(storage),
            "max_msgs_per_subject": .int(history), "discard": "new", "deny_delete": true, "allow_rollup_hdrs": true,
            "allow_direct": true,
        ])
    }

    /// The value of a key; nil if it was never set or was deleted.
    package func get(_ key: String) async throws(JetStreamError) -> KeyValueEntry? {
        guard let entry = try await last(key), !entry.isDeleted else { return nil }
        return entry
    }

    /// Sets a key whatever it was. Returns its new revision.
    package func put(_ key: String, _ value: [UInt8]) async throws(JetStreamError) -> UInt64 {
        try await write(key, value, expected: nil)
    }

    /// Sets a key that has no value. Throws refused with `isWrongLastSequence` if it has one.
    package func create(_ key: String, _ value: [UInt8]) async throws(JetStreamError) -> UInt64 {
        do throws(JetStreamError) {
            return try await write(key, value, expected: 0)
        } catch .refused(let error) where error.isWrongLastSequence {
            guard let entry = try await last(key), entry.isDeleted else { throw .refused(error) }
            return try await write(key, value, expected: entry.revision)
        }
    }

    /// Sets a key that is at a revision. Throws refused with `isWrongLastSequence` if it is at another.
    package func update(_ key: String, _ value: [UInt8], revision: UInt64) async throws(JetStreamError) -> UInt64 {
        try await write(key, value, expected: revision)
    }

    /// Marks a key as deleted; its earlier values stay in the history.
    package func delete(_ key: String) async throws(JetStreamError) {
        _ = try await write(key, [], expected: nil, headers: [KeyValueEntry.operationHeader: "DEL"])
    }

    /// Watches keys: first the current entry of each (deleted ones too), then every change, for ever.
    ///
    /// - Parameters:
    ///   - keys: a key or a pattern with wildcards.
    ///   - handler: called one event after the other; must not block.
    package func watch(
        _ keys: String = ">",
        handler: @escaping @Sendable (KeyValueEvent) -> Void
    ) throws(NATSError) -> OrderedConsumer {
        var options = OrderedConsumer.Options()
        options.filterSubject = prefix + keys
        let prefix = prefix
        return try OrderedConsumer(jetStream, stream: stream, options: options) { event in
            switch event {
            case .message(let message, _): handler(.entry(KeyValueEntry(message, prefix: prefix)))
            case .caughtUp: handler(.caughtUp)
            case .failed(let error): handler(.failed(error))
            case .recreated: break
            }
        }
    }

    private func last(_ key: String) async throws(JetStreamError) -> KeyValueEntry? {
        let subject = try subject(key)
        return try await jetStream.lastMessage(stream: stream, subject: subject)
            .map { KeyValueEntry($0, prefix: prefix) }
    }

    private func write(
        _ key: String,
        _ value: [UInt8],
        expected: UInt64?,
        headers: NATSHeaders = [:]
    ) async throws(JetStreamError) -> UInt64 {
        let outcome = await jetStream.publish(
            value,
            to: try subject(key),
            expectedLastSubjectSequence: expected,
            headers: headers
        )
        switch outcome {
        case .stored(let ack): return ack.sequence
        case .refused(let error): throw .refused(error)
        case .unknown(let error): throw .unknown(error)
        }
    }

    private func subject(_ key: String) throws(JetStreamError) -> String {
        do {
            try Subject.checkPublish(key, "key-value")
        } catch {
            throw .unknown(error)
        }
        return prefix + key
    }
}

/// One write of a key.
package struct KeyValueEntry: Sendable, Equatable {
    static let operationHeader = "KV-Operation"

    package let key: String
    package let value: [UInt8]
    package let revision: UInt64
    /// When the server stored it, in nanoseconds since 1970.
    package let timestamp: Int64
    /// The key was deleted or purged by this write.
    package let isDeleted: Bool

    init(_ message: StoredMessage, prefix: String) {
        key = String(message.subject.dropFirst(prefix.count))
        value = message.payload
        revision = message.sequence
        timestamp = message.timestamp
        isDeleted = ["DEL", "PURGE"].contains(message.headers[Self.operationHeader])
    }
}

/// What a watch of a bucket tells.
package enum KeyValueEvent: Sendable {
    case entry(KeyValueEntry)
    /// Every entry that was there when the watch began has been told.
    case caughtUp
    /// The bucket cannot be read; tried again until it can.
    case failed(JetStreamError)
}
