import WireJSON

/// A stream as the server describes it.
package struct StreamInfo: Sendable, Equatable {
    package let name: String
    /// The whole configuration in the server's words.
    package let config: JSON
    package let messages: UInt64
    package let bytes: UInt64
    package let firstSequence: UInt64
    /// The highest sequence ever given out, whether the message still exists or not.
    package let lastSequence: UInt64
    package let consumerCount: Int
    /// When the first message that it holds was stored, in nanoseconds since 1970; nil when it holds none.
    package let firstTimestamp: Int64?
    /// Where its copies are and how they are, in the server's words; nil on a server without a cluster.
    package let cluster: JSON?

    /// What it takes.
    package var subjects: [String] { (config["subjects"]?.arrayValue ?? []).compactMap(\.stringValue) }

    package init?(_ json: JSON) {
        guard let config = json["config"], let name = config["name"]?.stringValue, let state = json["state"],
            let messages = state["messages"]?.unsignedValue, let bytes = state["bytes"]?.unsignedValue,
            let first = state["first_seq"]?.unsignedValue, let last = state["last_seq"]?.unsignedValue
        else { return nil }
        self.name = name
        self.config = config
        self.messages = messages
        self.bytes = bytes
        firstSequence = first
        lastSequence = last
        consumerCount = Int(state["consumer_count"]?.intValue ?? 0)
        firstTimestamp = messages == 0 ? nil : state["first_ts"]?.stringValue.flatMap(RFC3339.nanoseconds)
        cluster = json["cluster"]
    }
}

extension JetStream {
    /// Throws refused with `isStreamNotFound` if there is none.
    package func streamInfo(_ name: String) async throws(JetStreamError) -> StreamInfo {
        try await streamRequest("STREAM.INFO", name, nil)
    }

    /// Creates a stream, or finds it with exactly this configuration. Does not look at what the server dropped:
    /// see ``createOrCheckStream(_:)``.
    ///
    /// - Parameter config: the fields of the API's stream configuration, `name` among them; durations in nanoseconds.
    package func createStream(_ config: JSON) async throws(JetStreamError) -> StreamInfo {
        try await streamRequest("STREAM.CREATE", config["name"]?.stringValue ?? "", config)
    }

    /// Replaces the configuration. Fields that are left out go back to the server's defaults.
    package func updateStream(_ config: JSON) async throws(JetStreamError) -> StreamInfo {
        try await streamRequest("STREAM.UPDATE", config["name"]?.stringValue ?? "", config)
    }

    /// Deletes a stream with all its messages. False if there was none.
    package func deleteStream(_ name: String) async throws(JetStreamError) -> Bool {
        try checkToken(name, "delete stream")
        do throws(JetStreamError) {
            return try await request("STREAM.DELETE.\(name)")["success"]?.boolValue ?? false
        } catch .refused(let error) where error.isStreamNotFound {
            return false
        }
    }

    /// Creates a stream, or checks the one that exists, and makes sure that the server runs every field as asked.
    ///
    /// - Throws: `configurationDiffers` if the stream stands, but an asked field is missing or other in what the
    ///   server reports; nothing is changed then.
    package func createOrCheckStream(_ config: JSON) async throws(JetStreamError) -> StreamInfo {
        let name = config["name"]?.stringValue ?? ""
        var info: StreamInfo
        do throws(JetStreamError) {
            info = try await createStream(config)
        } catch .refused(let error) where error.isStreamNameInUse {
            info = try await streamInfo(name)
        }
        let differences = ConfigurationDifference.between(asked: config, actual: info.config)
        if !differences.isEmpty { throw .configurationDiffers(object: "stream \(name)", differences) }
        return info
    }

    /// The names of the streams that hold a subject or overlap with its wildcards; of all streams without one.
    package func streamNames(subject: String? = nil) async throws(JetStreamError) -> [String] {
        var names: [String] = []
        while true {
            var body: JSON = ["offset": .int(names.count)]
            if let subject { body = ["offset": .int(names.count), "subject": .string(subject)] }
            let page = try await request("STREAM.NAMES", body)
            let found = (page["streams"]?.arrayValue ?? []).compactMap(\.stringValue)
            names += found
            if found.isEmpty || names.count >= Int(page["total"]?.intValue ?? 0) { return names }
        }
    }

    /// The subjects that a stream holds messages of, among those that match, and how many of each.
    package func subjects(of stream: String, matching filter: String) async throws(JetStreamError) -> [String: UInt64] {
        try checkToken(stream, "list subjects")
        var subjects: [String: UInt64] = [:]
        while true {
            let body: JSON = ["subjects_filter": .string(filter), "offset": .int(subjects.count)]
            let answer = try await request("STREAM.INFO.\(stream)", body)
            let before = subjects.count
            for field in answer["state"]?["subjects"]?.objectValue ?? JSONObject() {
                subjects[field.key] = field.value.unsignedValue ?? 0
            }
            // Servers that do not page tell all of them, and no total.
            if subjects.count == before || subjects.count >= Int(answer["total"]?.intValue ?? 0) { return subjects }
        }
    }

    /// Removes the messages of one subject, in which wildcards may stand.
    package func purge(stream: String, subject: String) async throws(JetStreamError) {
        try checkToken(stream, "purge")
        _ = try await request("STREAM.PURGE.\(stream)", ["filter": .string(subject)])
    }

    private func streamRequest(_ verb: String, _ name: String, _ body: JSON?) async throws(JetStreamError) -> StreamInfo
    {
        try checkToken(name, verb)
        guard let info = StreamInfo(try await request("\(verb).\(name)", body)) else { throw protocolError(verb, name) }
        return info
    }
}
