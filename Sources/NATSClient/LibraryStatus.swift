import CNATS

/// The C library's status as an error of ours.
extension NATSError {
    /// - Parameter detail: what the library or the server says beyond the status, if anything.
    init(status: natsStatus, _ operation: String, subject: String? = nil, detail: String? = nil) {
        let code: Code =
            switch status {
            case NATS_TIMEOUT: .timeout
            case NATS_CONNECTION_CLOSED, NATS_DRAINING, NATS_INVALID_SUBSCRIPTION: .closed
            case NATS_CONNECTION_DISCONNECTED, NATS_IO_ERROR, NATS_STALE_CONNECTION: .disconnected
            // The reconnect buffer has no room on purpose: see OptionsBuilder.
            case NATS_INSUFFICIENT_BUFFER, NATS_NOT_YET_CONNECTED, NATS_NO_SERVER: .notConnected
            case NATS_CONNECTION_AUTH_FAILED: .authentication
            case NATS_NOT_PERMITTED: .notPermitted
            case NATS_SSL_ERROR, NATS_SECURE_CONNECTION_WANTED, NATS_SECURE_CONNECTION_REQUIRED: .tls
            case NATS_INVALID_SUBJECT, NATS_INVALID_QUEUE_NAME: .badSubject
            case NATS_MAX_PAYLOAD: .tooLarge
            case NATS_NO_RESPONDERS: .noResponders
            case NATS_ADDRESS_MISSING, NATS_INVALID_ARG: .badOption
            case NATS_PROTOCOL_ERROR, NATS_LINE_TOO_LONG, NATS_NO_SERVER_SUPPORT: .protocol
            default: .library
            }
        let text = unsafe natsStatus_GetText(status).map { unsafe String(cString: $0) } ?? "status \(status.rawValue)"
        let extra = (detail ?? "").isEmpty || detail == text ? "" : ": \(detail ?? "")"
        self.init(code, operation, subject: subject, cause: text + extra)
    }
}
