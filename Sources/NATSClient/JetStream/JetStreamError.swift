import WireJSON

/// An answer of the JetStream API that says no.
package struct JetStreamAPIError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The HTTP-like class of the error: 400, 404, 500, 503.
    package let code: Int
    /// The server's number for the exact reason; 0 if the message was refused on this side and never sent.
    package let errorCode: Int
    /// The reason in the server's words.
    package let text: String

    package init(code: Int, errorCode: Int, text: String) {
        self.code = code
        self.errorCode = errorCode
        self.text = text
    }

    /// The record is not at the sequence that the write expected.
    package var isWrongLastSequence: Bool { errorCode == 10071 }
    package var isStreamNotFound: Bool { errorCode == 10059 }
    package var isConsumerNotFound: Bool { errorCode == 10014 }
    package var isMessageNotFound: Bool { errorCode == 10037 }
    /// A stream of that name exists with another configuration.
    package var isStreamNameInUse: Bool { errorCode == 10058 }
    /// The subjects belong to another stream already.
    package var isSubjectsOverlap: Bool { errorCode == 10065 }
    /// A cluster that is not whole yet, or not any more: peers are missing (10005), JetStream has no leader (10008), the
    /// stream is offline (10118). Code 503 says as much for all others.
    package var isUnavailable: Bool { code == 503 || [10005, 10008, 10118].contains(errorCode) }
    /// The write is still on its way through the cluster: it may be stored yet.
    var isInFlight: Bool { errorCode == 10164 || errorCode == 10158 }

    package var description: String {
        errorCode == 0 ? text : "\(text) (JetStream error \(errorCode), code \(code))"
    }

    /// The error object of an API answer.
    init?(_ json: JSON?) {
        guard let json, !json.isNull else { return nil }
        code = Int(json["code"]?.intValue ?? 0)
        errorCode = Int(json["err_code"]?.intValue ?? 0)
        text = json["description"]?.stringValue ?? "no description"
    }

    /// A message that cannot be sent as it is.
    init(notSent error: NATSError) {
        self.init(code: 400, errorCode: 0, text: error.description)
    }
}

/// Why a JetStream request did not do what was asked.
package enum JetStreamError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The server said no.
    case refused(JetStreamAPIError)
    /// No answer, or none that can be read: whether it was done is unknown.
    case unknown(NATSError)
    /// The object exists, but the server runs it with other settings than asked: an old server drops what it does not
    /// know, and an object that existed keeps what it had.
    case configurationDiffers(object: String, [ConfigurationDifference])

    package var apiError: JetStreamAPIError? {
        guard case .refused(let error) = self else { return nil }
        return error
    }

    package var description: String {
        switch self {
        case .refused(let error): "JetStream refused: \(error)"
        case .unknown(let error): error.description
        case .configurationDiffers(let object, let differences):
            "\(object) does not have the settings that were asked for: "
                + differences.map(\.description).joined(separator: "; ")
        }
    }
}
