import CNATS
import EventLoop
import Glibc

/// The options in the C library's form. Owns the C object.
///
/// Files are read here, so that a wrong path is an error at once and not a connection that never comes.
@safe
final class OptionsBuilder {
    let handle: OpaquePointer
    private static let operation = "connection options"

    /// - Parameters:
    ///   - urls: the servers, in the order in which they are tried.
    ///   - session: the number under which the session's callbacks are found.
    ///   - socket: the same for those of its socket.
    init(_ options: NATSConnectionOptions, urls: [String], session: UInt, socket: UInt) throws(NATSError) {
        try Self.checkCombination(options)
        var created: OpaquePointer?
        try Self.check(unsafe natsOptions_Create(&created), "options")
        guard let created = unsafe created else { throw NATSError(.library, Self.operation, cause: "out of memory") }
        unsafe handle = created
        try setServers(urls)
        try setBehaviour(options)
        try setIdentity(options)
        if let tls = options.tls { try setTLS(tls) }
        unsafe try setCallbacks(cnats_context(session))
        unsafe try setEventLoop(cnats_context(socket))
    }

    deinit { unsafe natsOptions_Destroy(handle) }

    private static func checkCombination(_ options: NATSConnectionOptions) throws(NATSError) {
        if options.urls.isEmpty {
            throw NATSError(.badOption, operation, subject: "servers", cause: "give at least one")
        }
        for url in options.urls {
            if let cause = ServerURL.fault(in: url) {
                throw NATSError(.badOption, operation, subject: url, cause: cause)
            }
        }
        if options.credentialsFile != nil && options.nkeySeedFile != nil {
            throw NATSError(
                .badOption,
                operation,
                subject: "identity",
                cause: "give a credentials file or an NKey, not both"
            )
        }
        if (options.nkeySeedFile == nil) != (options.nkeyPublicKey == nil) {
            throw NATSError(.badOption, operation, subject: "NKey", cause: "give both the seed file and the public key")
        }
        if let tls = options.tls, (tls.certificateFile == nil) != (tls.keyFile == nil) {
            throw NATSError(.badOption, operation, subject: "TLS", cause: "give both the certificate and its key")
        }
        if !(1...RequestTable.maximumSlots).contains(options.maximumRequests) {
            throw NATSError(
                .badOption,
                operation,
                subject: "maximumRequests",
                cause: "must be 1 to \(RequestTable.maximumSlots)"
            )
        }
    }

    private func setServers(_ urls: [String]) throws(NATSError) {
        // The setter copies the strings; they live here until it has.
        let copies = unsafe urls.map { unsafe strdup($0) }
        defer { unsafe copies.forEach { unsafe free($0) } }
        var pointers = unsafe copies.map { unsafe UnsafePointer($0) }
        let status = unsafe natsOptions_SetServers(handle, &pointers, Int32(urls.count))
        try Self.check(status, urls.joined(separator: ","))
    }

    private func setBehaviour(_ options: NATSConnectionOptions) throws(NATSError) {
        try Self.check(unsafe natsOptions_SetName(handle, options.name), "name")
        // Without it every publish waits about 1 ms for a flusher thread; with it, until the loop has done what it is at.
        try Self.check(unsafe natsOptions_SetSendAsap(handle, true), "send asap")
        // On an event loop the library reads what a new connection brings as the rest of what the old one was cut off in
        // (3.4.1: nothing resets its parser), and holds its lock while it looks for a server. So each connection has an object
        // of its own.
        try Self.check(unsafe natsOptions_SetAllowReconnect(handle, false), "reconnect")
        try Self.check(unsafe natsOptions_SetNoRandomize(handle, true), "order of servers")
        try Self.check(
            unsafe natsOptions_SetTimeout(handle, options.connectTimeout.wholeMilliseconds),
            "connectTimeout"
        )
        try Self.check(
            unsafe natsOptions_SetWriteDeadline(handle, options.writeDeadline.wholeMilliseconds),
            "writeDeadline"
        )
        // Whether the server lives is asked by the connection (`watchServer`): the library, on a thread of its own, would
        // take the encryption's state away from under the loop that reads with it.
        try Self.check(unsafe natsOptions_SetPingInterval(handle, 0), "ping interval")
    }

    private func setIdentity(_ options: NATSConnectionOptions) throws(NATSError) {
        if let file = options.credentialsFile {
            try Self.checkReadable(file)
            try Self.check(unsafe natsOptions_SetUserCredentialsFromFiles(handle, file, nil), file)
        }
        if let file = options.nkeySeedFile, let key = options.nkeyPublicKey {
            try Self.checkReadable(file)
            try Self.check(unsafe natsOptions_SetNKeyFromSeed(handle, key, file), file)
        }
    }

    private func setTLS(_ tls: NATSTLSOptions) throws(NATSError) {
        try Self.check(unsafe natsOptions_SetSecure(handle, true), "TLS")
        if let file = tls.caFile {
            try Self.checkReadable(file)
            try Self.check(unsafe natsOptions_LoadCATrustedCertificates(handle, file), file)
        }
        if let certificate = tls.certificateFile, let key = tls.keyFile {
            try Self.checkReadable(certificate)
            try Self.checkReadable(key)
            try Self.check(unsafe natsOptions_LoadCertificatesChain(handle, certificate, key), certificate)
        }
        if let hostname = tls.expectedHostname {
            try Self.check(unsafe natsOptions_SetExpectedHostname(handle, hostname), hostname)
        }
        try Self.check(unsafe natsOptions_SkipServerVerification(handle, !tls.verify), "TLS verification")
    }

    private func setCallbacks(_ context: UnsafeMutableRawPointer?) throws(NATSError) {
        unsafe try Self.check(natsOptions_SetClosedCB(handle, LibraryCallback.closed, context), "callbacks")
        unsafe try Self.check(natsOptions_SetErrorHandler(handle, LibraryCallback.error, context), "callbacks")
    }

    private func setEventLoop(_ context: UnsafeMutableRawPointer?) throws(NATSError) {
        let status = unsafe natsOptions_SetEventLoop(
            handle,
            context,
            LibraryCallback.attach,
            LibraryCallback.read,
            LibraryCallback.write,
            LibraryCallback.detach
        )
        try Self.check(status, "event loop")
    }

    private static func check(_ status: natsStatus, _ what: String) throws(NATSError) {
        if status == NATS_OK { return }
        throw NATSError(status: status, operation, subject: what, detail: NATSSession.threadError())
    }

    private static func checkReadable(_ file: String) throws(NATSError) {
        if unsafe access(file, R_OK) != 0 {
            throw NATSError(
                .badOption,
                operation,
                subject: file,
                cause: "cannot read the file: \(Errno.current)"
            )
        }
    }
}
