/// Why an operation on the bus failed, what was being done, and to what.
package struct NATSError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The kind of failure. More kinds may come: match the ones you act on and treat the rest alike.
    package struct Code: Sendable, Hashable, CustomStringConvertible {
        package let description: String

        private init(_ description: String) { self.description = description }

        /// There is no connection; nothing was sent.
        package static let notConnected = Code("not connected")
        /// The connection dropped while the answer was awaited; the effect is unknown.
        package static let disconnected = Code("disconnected")
        /// No answer before the deadline; the effect is unknown.
        package static let timeout = Code("timed out")
        /// Nobody listens on the subject: no such stream or consumer, JetStream off, or no such service.
        package static let noResponders = Code("no responders")
        /// The connection was closed by its owner.
        package static let closed = Code("closed")
        /// The message is larger than the server accepts; nothing was sent.
        package static let tooLarge = Code("message too large")
        /// Too many requests are waiting for an answer; nothing was sent.
        package static let tooManyRequests = Code("too many requests in flight")
        /// The subject cannot be used; nothing was sent.
        package static let badSubject = Code("bad subject")
        /// A header name or value cannot be sent; nothing was sent.
        package static let badHeader = Code("bad header")
        /// The server refused the credentials.
        package static let authentication = Code("authentication failed")
        /// The server does not permit the subject.
        package static let notPermitted = Code("not permitted")
        /// Encryption could not be set up.
        package static let tls = Code("TLS failed")
        /// An option or an argument is unusable.
        package static let badOption = Code("bad option")
        /// The server does not take what was sent before; nothing was sent.
        package static let congested = Code("congested")
        /// The other side sent something that is not understood, or does not know a feature.
        package static let `protocol` = Code("protocol error")
        /// The waiting task was cancelled; the effect is unknown.
        package static let cancelled = Code("cancelled")
        /// Anything else that the C library reports; see ``NATSError/cause``.
        package static let library = Code("client library error")
    }

    package let code: Code
    /// What was being done, such as "publish".
    package let operation: String
    /// The subject, file or address that it was done to.
    package let subject: String?
    /// The underlying reason in the words of the C library or the server.
    package let cause: String?

    package init(_ code: Code, _ operation: String, subject: String? = nil, cause: String? = nil) {
        self.code = code
        self.operation = operation
        self.subject = subject
        self.cause = cause
    }

    package var description: String {
        var text = "NATS \(operation)"
        if let subject { text += " \(subject)" }
        text += ": \(code)"
        if let cause, !cause.isEmpty { text += " (\(cause))" }
        return text
    }

    /// Whether the message certainly never left this process, so that sending it unchanged is pointless.
    var isLocalRefusal: Bool {
        [.badSubject, .badHeader, .tooLarge, .badOption].contains(code)
    }
}
