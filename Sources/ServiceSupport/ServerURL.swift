/// The address of a NATS server. Its description never shows a password.
package struct ServerURL: Sendable, Hashable, CustomStringConvertible {
    /// The whole address, with whatever secret stands in it: for the client alone.
    package let text: String

    /// `nats://127.0.0.1:4222`
    package static let local = ServerURL(trusted: "nats://127.0.0.1:4222")

    private init(trusted text: String) { self.text = text }

    /// The server of this machine on another port than the usual one.
    package static func loopback(port: UInt16) -> ServerURL { ServerURL(trusted: "nats://127.0.0.1:\(port)") }

    /// Checks an address: `[nats|tls]://[user[:password]@]host[:port]`; without a scheme it is `nats://`.
    package init(_ given: String) throws(SettingProblem) {
        func refuse(_ why: String) -> SettingProblem {
            SettingProblem("\(quoted(given)) is not a server's address: \(why), as in nats://host:4222")
        }
        let separator = "://"
        var scheme = "nats"
        var rest = Substring(given)
        if let range = Self.range(of: separator, in: given) {
            scheme = given[..<range.lowerBound].lowercased()
            rest = given[range.upperBound...]
        }
        guard ["nats", "tls"].contains(scheme) else { throw refuse("the scheme must be nats or tls") }
        while rest.last == "/" { rest.removeLast() }
        let host = rest.lastIndex(of: "@").map { rest[rest.index(after: $0)...] } ?? rest
        guard !host.isEmpty, !given.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7F }), !host.contains("/") else {
            throw refuse("a host is needed")
        }
        try Self.checkPort(of: host, refuse)
        text = "\(scheme)\(separator)\(rest)"
    }

    private static func checkPort(
        of host: Substring,
        _ refuse: (String) -> SettingProblem
    ) throws(SettingProblem) {
        let name: Substring
        let port: Substring?
        if host.first == "[", let close = host.lastIndex(of: "]") {
            name = host[...close]
            let after = host[host.index(after: close)...]
            guard after.isEmpty || after.first == ":" else { throw refuse("a port is needed after ']'") }
            port = after.isEmpty ? nil : after.dropFirst()
        } else if let colon = host.firstIndex(of: ":") {
            name = host[..<colon]
            port = host[host.index(after: colon)...]
        } else {
            name = host
            port = nil
        }
        guard !name.isEmpty else { throw refuse("a host is needed") }
        guard let port else { return }
        guard let number = UInt16(port), number > 0 else { throw refuse("the port must be 1 to 65535") }
    }

    private static func range(of separator: String, in text: String) -> Range<String.Index>? {
        guard let colon = text.firstIndex(of: ":"), text[colon...].hasPrefix(separator) else { return nil }
        return colon..<text.index(colon, offsetBy: separator.count)
    }

    package var description: String { Secrets.masked(text) }
}
