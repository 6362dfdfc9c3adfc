import CNATS

/// A message as it was received.
package struct NATSMessage: Sendable {
    package let subject: String
    /// Where an answer is expected, if it is.
    package let replySubject: String?
    package let headers: NATSHeaders
    package let payload: [UInt8]
    /// The status of a message that the server made itself (100, 404, 408, 409, 503 ...), nil for any other.
    package let status: Int?
    /// What the server says beside the status, such as "Consumer Deleted".
    package let statusDescription: String?
}

/// A message that still belongs to the C library: valid only inside the callback that it was handed to.
///
/// Answers to publishes are read straight out of it, so that no string or array is built for each.
@safe
struct RawMessage {
    private let message: OpaquePointer

    init(_ message: OpaquePointer) { unsafe self.message = message }

    var payload: UnsafeRawBufferPointer {
        let length = unsafe natsMsg_GetDataLength(message)
        guard length > 0, let data = unsafe natsMsg_GetData(message) else {
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
        return unsafe UnsafeRawBufferPointer(start: data, count: Int(length))
    }

    /// The subject as a C string.
    var subjectPointer: UnsafePointer<CChar>? { unsafe natsMsg_GetSubject(message) }

    var subject: String { unsafe subjectPointer.map { unsafe String(cString: $0) } ?? "" }

    var replySubject: String? { unsafe natsMsg_GetReply(message).map { unsafe String(cString: $0) } }

    /// The status number of a message that the server made itself. The library moves the status line of the header
    /// block into two headers, so a sender's own header "Status" on a message with a payload is not taken for one.
    var status: Int? {
        guard unsafe natsMsg_GetDataLength(message) == 0 else { return nil }
        return header("Status").flatMap { Int($0) }
    }

    func header(_ name: String) -> String? {
        var value: UnsafePointer<CChar>?
        guard unsafe natsMsgHeader_Get(message, name, &value) == NATS_OK, let value = unsafe value else { return nil }
        return unsafe String(cString: value)
    }

    /// A copy that outlives the callback.
    func copy() -> NATSMessage {
        let status = status
        var headers = headers()
        var statusDescription: String?
        if status != nil {
            statusDescription = headers["Description"]
            headers["Status"] = nil
            headers["Description"] = nil
        }
        return unsafe NATSMessage(
            subject: subject,
            replySubject: replySubject,
            headers: headers,
            payload: Array(payload),
            status: status,
            statusDescription: statusDescription
        )
    }

    /// The headers as the library reads them; none if it cannot (it takes the line after an empty value for the value,
    /// and a block that ends so for malformed).
    private func headers() -> NATSHeaders {
        var headers = NATSHeaders()
        var names: UnsafeMutablePointer<UnsafePointer<CChar>?>?
        var nameCount: Int32 = 0
        guard unsafe natsMsgHeader_Keys(message, &names, &nameCount) == NATS_OK, let names = unsafe names else {
            return headers
        }
        defer { unsafe free(names) }
        for index in 0..<Int(nameCount) {
            guard let name = unsafe names[index] else { continue }
            var values: UnsafeMutablePointer<UnsafePointer<CChar>?>?
            var valueCount: Int32 = 0
            guard unsafe natsMsgHeader_Values(message, name, &values, &valueCount) == NATS_OK,
                let values = unsafe values
            else { continue }
            defer { unsafe free(values) }
            for index in 0..<Int(valueCount) {
                guard let value = unsafe values[index] else { continue }
                headers.add(unsafe String(cString: name), unsafe String(cString: value))
            }
        }
        return headers
    }
}
