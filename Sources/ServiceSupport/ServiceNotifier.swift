import Glibc

/// Tells systemd how a service of Type=notify is doing (sd_notify(3)). Does nothing when systemd did not start it.
package struct ServiceNotifier: Sendable {
    private let socketPath: String?
    /// How often ``keepAlive()`` must be sent at least; nil when systemd does not watch. Send twice as often.
    package let watchdogInterval: Duration?

    /// - Parameter environment: gives the value of an environment variable.
    package init(environment: (String) -> String? = { HostInfo.environmentVariable($0) }) {
        socketPath = environment("NOTIFY_SOCKET").flatMap { $0.isEmpty ? nil : $0 }
        let isOurs = environment("WATCHDOG_PID").map { $0 == "\(HostInfo.processID)" } ?? true
        watchdogInterval =
            isOurs ? environment("WATCHDOG_USEC").flatMap(Int64.init).flatMap { $0 > 0 ? .microseconds($0) : nil } : nil
    }

    /// The service is ready.
    package func ready() { send("READY=1") }
    /// The service has begun to stop.
    package func stopping() { send("STOPPING=1") }
    /// The service lives.
    package func keepAlive() { send("WATCHDOG=1") }
    /// One line for `systemctl status`.
    package func status(_ text: String) { send("STATUS=\(text.split(separator: "\n").joined(separator: " "))") }

    /// Sends one datagram. That nobody takes it is no error of the service: it works the same without systemd.
    private func send(_ message: String) {
        guard let socketPath else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var path = Array(socketPath.utf8)
        // A leading @ stands for the NUL of an abstract socket, whose name is counted, not terminated.
        if path.first == UInt8(ascii: "@") { path[0] = 0 } else { path.append(0) }
        guard path.count <= MemoryLayout.size(ofValue: address.sun_path) else { return }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path) }
        let length = MemoryLayout<sa_family_t>.size + path.count
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let bytes = Array(message.utf8)
        _ = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, socklen_t(length))
            }
        }
    }
}
