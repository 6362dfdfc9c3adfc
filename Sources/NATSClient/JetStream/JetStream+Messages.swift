import WireJSON

/// Reading and deleting single messages.
extension JetStream {
    /// The last message of a subject, in which wildcards may stand: the answer of the stream's leader. Nil if there is
    /// none, and only then.
    package func lastMessage(stream: String, subject: String) async throws(JetStreamError) -> StoredMessage? {
        try await message(stream: stream, ["last_by_subj": .string(subject)])
    }

    /// The message at a sequence; nil if there is none.
    package func message(stream: String, sequence: UInt64) async throws(JetStreamError) -> StoredMessage? {
        try await message(stream: stream, ["seq": .int(sequence)])
    }

    /// The first message of a subject at or after a sequence; nil if there is none.
    package func nextMessage(
        stream: String,
        subject: String,
        from sequence: UInt64
    ) async throws(JetStreamError) -> StoredMessage? {
        try await message(stream: stream, ["seq": .int(sequence), "next_by_subj": .string(subject)])
    }

    private func message(stream: String, _ query: JSON) async throws(JetStreamError) -> StoredMessage? {
        try checkToken(stream, "read message")
        do throws(JetStreamError) {
            let json = try await request("STREAM.MSG.GET.\(stream)", query)
            guard let message = StoredMessage(json["message"]) else { throw protocolError("read message", stream) }
            return message
        } catch .refused(let error) where error.isMessageNotFound {
            return nil
        }
    }

    /// The last message of a subject from whichever replica answers, which may be behind; cheaper than
    /// ``lastMessage(stream:subject:)``. The stream needs `allow_direct`, else this throws `noResponders`.
    package func directGet(stream: String, subject: String) async throws(JetStreamError) -> StoredMessage? {
        try checkToken(stream, "direct get")
        let api = "\(prefix).DIRECT.GET.\(stream).\(subject)"
        let answer: NATSMessage
        do {
            answer = try await connection.ask([], to: api, deadline: deadline)
        } catch {
            throw .unknown(error)
        }
        switch answer.status {
        case nil: break
        case 404: return nil
        case let status?:
            let text = answer.statusDescription ?? "direct get failed"
            throw .refused(JetStreamAPIError(code: status, errorCode: 0, text: text))
        }
        guard let message = StoredMessage(direct: answer) else { throw protocolError("direct get", subject) }
        return message
    }

    /// Deletes the message at a sequence, without overwriting its bytes on disk. False if there is none.
    package func deleteMessage(stream: String, sequence: UInt64) async throws(JetStreamError) -> Bool {
        try checkToken(stream, "delete message")
        do throws(JetStreamError) {
            let json = try await request("STREAM.MSG.DELETE.\(stream)", ["seq": .int(sequence), "no_erase": true])
            return json["success"]?.boolValue ?? false
        } catch .refused(let error) where Self.saysNothingToDelete(error) {
            return false
        }
    }

    /// 10043 for a message that is gone; 10057, which stands for other failures too, for a sequence that the stream
    /// has not reached (seen with 2.9.10 and 2.14.0).
    private static func saysNothingToDelete(_ error: JetStreamAPIError) -> Bool {
        error.errorCode == 10043
            || error.errorCode == 10057 && ["stream store EOF", "no message found"].contains(error.text)
    }
}
