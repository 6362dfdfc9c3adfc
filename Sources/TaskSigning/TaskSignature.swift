import CEd25519

/// The signature of a task, inside the task, so that it goes wherever the task goes and the record holds it: the last
/// field, in exactly this form, `,"signature":"<public NKey>:<128 hexadecimal digits>"}`. Signed is the task without it,
/// byte for byte.
package enum TaskSignature {
    private static let opening = Array(",\"signature\":\"".utf8)
    private static let closing = Array("\"}".utf8)
    private static let digits = Array("0123456789abcdef".utf8)
    private static let signatureLength = 2 * Int(ED25519_SIGNATURE_SIZE)

    /// All of the field, with the brace that ends the task.
    package static let length = opening.count + SubmitterKey.length + 1 + signatureLength + closing.count

    /// Why a task is not one of a trusted submitter.
    package enum Flaw: Error, Equatable, CustomStringConvertible {
        case unsigned
        case untrusted(SubmitterKey)
        /// The signature belongs to other bytes.
        case forged(SubmitterKey)

        package var description: String {
            switch self {
            case .unsigned: "it is not signed (maestroctl submit --sign-with)"
            case .untrusted(let key): "it is signed by \(key), whom this worker does not know"
            case .forged(let key): "its signature is not that of \(key), or it was changed after it was signed"
            }
        }
    }

    /// The task with its signature; nil when it is no object with something in it.
    package static func sign(_ task: [UInt8], with key: SigningKey) -> [UInt8]? {
        guard let brace = task.lastIndex(where: { !isBlank($0) }), task[brace] == UInt8(ascii: "}"),
            let last = task[..<brace].lastIndex(where: { !isBlank($0) }), task[last] != UInt8(ascii: "{")
        else { return nil }
        let open = task[..<brace]
        guard let signature = key.signature(of: open + [UInt8(ascii: "}")]) else { return nil }
        var signed = Array(open)
        signed += opening
        signed += key.publicKey.text.utf8
        signed.append(UInt8(ascii: ":"))
        for byte in signature { signed += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        return signed + closing
    }

    /// Who has signed a submission.
    /// - Parameter trusted: who may have.
    package static func signer(
        of submission: [UInt8],
        trusted: Set<SubmitterKey>
    ) throws(Flaw) -> SubmitterKey {
        guard submission.count > length, submission.suffix(closing.count).elementsEqual(closing) else {
            throw .unsigned
        }
        let field = submission.suffix(length)
        guard field.prefix(opening.count).elementsEqual(opening) else { throw .unsigned }
        let value = field.dropFirst(opening.count).dropLast(closing.count)
        let name = String(decoding: value.prefix(SubmitterKey.length), as: UTF8.self)
        let rest = value.dropFirst(SubmitterKey.length)
        guard let key = SubmitterKey(name), rest.first == UInt8(ascii: ":"), let signature = bytes(rest.dropFirst())
        else { throw .unsigned }
        guard trusted.contains(key) else { throw .untrusted(key) }
        let message = submission.dropLast(length) + [UInt8(ascii: "}")]
        let isGood = unsafe message.withUnsafeBufferPointer { message in
            unsafe ed25519_verify(key.bytes, message.baseAddress, message.count, signature) == 1
        }
        guard isGood else { throw .forged(key) }
        return key
    }

    private static func isBlank(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }

    private static func bytes(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        var high: UInt8?
        for letter in text {
            guard let value = digits.firstIndex(of: letter).map({ UInt8($0) }) else { return nil }
            if let upper = high {
                bytes.append(upper << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return bytes.count == Int(ED25519_SIGNATURE_SIZE) && high == nil ? bytes : nil
    }
}
