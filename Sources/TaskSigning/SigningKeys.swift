import CEd25519

/// The public key of a submitter: an NKey of a user, `U…`.
package struct SubmitterKey: Sendable, Hashable, CustomStringConvertible {
    /// Letters of its text form.
    static let length = 56

    package let text: String
    let bytes: [UInt8]

    /// Nil for anything but the public NKey of a user.
    package init?(_ text: String) {
        guard let content = NKey.decode(text), content.count == 33, content[0] == NKey.userPrefix else { return nil }
        self.text = text
        bytes = Array(content.dropFirst())
    }

    init(bytes: [UInt8]) {
        self.bytes = bytes
        text = NKey.encode([NKey.userPrefix] + bytes)
    }

    package var description: String { text }
}

/// The secret with which a submitter signs: an NKey seed of a user, `SU…`.
package struct SigningKey: Sendable {
    let seed: [UInt8]
    /// By which others know it.
    package let publicKey: SubmitterKey

    /// Nil for anything but the seed of a user's NKey.
    package init?(seed text: String) {
        guard let content = NKey.decode(text), content.count == 34, content[0] & 0xF8 == NKey.seedPrefix,
            (content[0] & 7) << 5 | content[1] >> 3 == NKey.userPrefix
        else { return nil }
        let seed = Array(content.dropFirst(2))
        var publicBytes = [UInt8](repeating: 0, count: seed.count)
        guard unsafe ed25519_public_key(seed, &publicBytes) == 1 else { return nil }
        self.seed = seed
        publicKey = SubmitterKey(bytes: publicBytes)
    }

    /// Nil only when libcrypto has no memory left.
    func signature(of message: [UInt8]) -> [UInt8]? {
        var signature = [UInt8](repeating: 0, count: Int(ED25519_SIGNATURE_SIZE))
        return unsafe ed25519_sign(seed, message, message.count, &signature) == 1 ? signature : nil
    }
}
