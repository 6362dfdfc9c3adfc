/// The text form of NATS's keys (github.com/nats-io/nkeys): in base32 without padding a prefix of one byte (two for
/// seeds), 32 bytes of key, and a CRC-16 of what stands before, low byte first.
enum NKey {
    /// `U`, a user.
    static let userPrefix: UInt8 = 20 << 3
    /// `S`, a seed; the kind of the key follows in the next bits.
    static let seedPrefix: UInt8 = 18 << 3

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".utf8)

    /// The bytes before the checksum; nil when that is wrong.
    static func decode(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for letter in text.utf8 {
            guard let value = alphabet.firstIndex(of: letter) else { return nil }
            bits = bits << 5 | UInt32(value)
            count += 5
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        guard bytes.count > 2 else { return nil }
        let content = Array(bytes.dropLast(2))
        let checksum = UInt16(bytes[bytes.count - 2]) | UInt16(bytes[bytes.count - 1]) << 8
        return checksum == crc(content) && encode(content) == text ? content : nil
    }

    /// - Parameter content: what stands before the checksum.
    static func encode(_ content: [UInt8]) -> String {
        let sum = crc(content)
        var text: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for byte in content + [UInt8(truncatingIfNeeded: sum), UInt8(sum >> 8)] {
            bits = bits << 8 | UInt32(byte)
            count += 8
            while count >= 5 {
                count -= 5
                text.append(alphabet[Int(bits >> UInt32(count) & 31)])
            }
        }
        if count > 0 { text.append(alphabet[Int(bits << UInt32(5 - count) & 31)]) }
        return String(decoding: text, as: UTF8.self)
    }

    /// CRC-16/XMODEM.
    private static func crc(_ bytes: [UInt8]) -> UInt16 {
        var crc: UInt16 = 0
        for byte in bytes {
            crc ^= UInt16(byte) << 8
            for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc << 1 ^ 0x1021 : crc << 1 }
        }
        return crc
    }
}
