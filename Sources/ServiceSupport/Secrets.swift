/// Keeps passwords and tokens that stand in addresses out of logs and error messages.
package enum Secrets {
    /// The text with the user part of every address in it replaced: `nats://***@host:4222`.
    package static func masked(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: "@")) else { return text }
        let bytes = Array(text.utf8)
        var masked: [UInt8] = []
        masked.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            guard bytes[index...].starts(with: "://".utf8) else {
                masked.append(bytes[index])
                index += 1
                continue
            }
            masked.append(contentsOf: "://".utf8)
            index += 3
            let end = bytes[index...].firstIndex(where: Self.endsAddress) ?? bytes.count
            if let at = bytes[index..<end].lastIndex(of: UInt8(ascii: "@")) {
                masked.append(contentsOf: "***".utf8)
                index = at
            }
        }
        return String(decoding: masked, as: UTF8.self)
    }

    /// What cannot stand in an address unescaped. A slash can stand in a password that somebody forgot to escape, so
    /// it ends nothing here: too much is masked rather than too little.
    private static func endsAddress(_ byte: UInt8) -> Bool {
        byte <= 0x20 || byte == UInt8(ascii: ",") || byte == UInt8(ascii: "\"")
    }
}
