/// Checks the address of a server. The library would find a bad one only when it tries to connect, again and again.
enum ServerURL {
    /// What is wrong with an address of the form `[nats://|tls://][user:password@|token@]host[:port]`; nil if nothing.
    static func fault(in url: String) -> String? {
        var rest = Substring(url)
        if let scheme = url.range(of: "://") {
            if !["nats", "tls"].contains(url[..<scheme.lowerBound]) { return "the scheme must be nats:// or tls://" }
            rest = url[scheme.upperBound...]
        }
        if rest.last == "/" { rest = rest.dropLast() }
        if let at = rest.lastIndex(of: "@") { rest = rest[rest.index(after: at)...] }
        if rest.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7F }) {
            return "it has white space or a control character"
        }
        var host = rest
        // A colon inside brackets belongs to an IPv6 address.
        if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("]") {
            host = rest[..<colon]
            guard let port = UInt16(rest[rest.index(after: colon)...]), port > 0 else {
                return "the port must be a number from 1 to 65535"
            }
        }
        if host.isEmpty { return "there is no host; write nats://HOST:PORT" }
        return host.contains("/") ? "it has a path; write nats://HOST:PORT" : nil
    }
}

extension ServerURL {
    /// Host and port of an address that has no fault, without a scheme and without who one is.
    static func place(of url: String) -> Substring {
        var rest = url[...]
        if let scheme = url.range(of: "://") { rest = url[scheme.upperBound...] }
        if let at = rest.lastIndex(of: "@") { rest = rest[rest.index(after: at)...] }
        return rest.last == "/" ? rest.dropLast() : rest
    }
}

extension String {
    /// The first place of a text within this one.
    fileprivate func range(of text: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
