import Glibc
import WireJSON

/// Reads the answer to a publish.
///
/// The usual answer, `{"stream":"S","seq":12,"duplicate":true}`, is read in one pass over the bytes; anything else,
/// such as an error, goes through the JSON parser.
enum PubAckScanner {
    static func outcome(of message: RawMessage, subject: String) -> PublishOutcome {
        let payload = unsafe message.payload
        var scan = unsafe Scan(payload)
        if let ack = scan.ack() { return .stored(ack) }
        if unsafe payload.isEmpty {
            return .unknown(NATSError(.protocol, "publish", subject: subject, cause: "empty answer"))
        }
        return outcome(ofText: unsafe Array(payload), subject: subject)
    }

    private static func outcome(ofText bytes: [UInt8], subject: String) -> PublishOutcome {
        let json: JSON
        do {
            json = try JSON(parsing: bytes)
        } catch {
            return .unknown(NATSError(.protocol, "publish", subject: subject, cause: "the answer is \(error)"))
        }
        if let error = JetStreamAPIError(json["error"]) {
            if !error.isInFlight { return .refused(error) }
            return .unknown(NATSError(.timeout, "publish", subject: subject, cause: error.description))
        }
        guard let stream = json["stream"]?.stringValue, let sequence = json["seq"]?.unsignedValue else {
            // A service that is no stream can answer too.
            return .unknown(NATSError(.protocol, "publish", subject: subject, cause: "the answer is not a stream's"))
        }
        let duplicate = json["duplicate"]?.boolValue ?? false
        return .stored(PublishAck(stream: stream, sequence: sequence, isDuplicate: duplicate))
    }

    /// The one-pass reader; gives up (nil) at anything that it does not expect.
    @safe
    private struct Scan {
        private let bytes: UnsafeRawBufferPointer
        private let count: Int
        private var position = 0

        init(_ bytes: UnsafeRawBufferPointer) {
            unsafe self.bytes = bytes
            count = bytes.count
        }

        mutating func ack() -> PublishAck? {
            var stream: String?
            var sequence: UInt64?
            var duplicate = false
            guard take("{") else { return nil }
            while true {
                guard let key = text(), take(":") else { return nil }
                switch key.count {
                case 6 where matches(key, "stream"):
                    guard let value = text() else { return nil }
                    stream = unsafe String(decoding: UnsafeRawBufferPointer(rebasing: bytes[value]), as: UTF8.self)
                case 3 where matches(key, "seq"):
                    guard let value = number() else { return nil }
                    sequence = value
                case 9 where matches(key, "duplicate"):
                    if word("true") { duplicate = true } else if !word("false") { return nil }
                case 6 where matches(key, "domain"):
                    if text() == nil { return nil }
                default: return nil
                }
                if take(",") { continue }
                guard take("}"), let stream, let sequence else { return nil }
                return PublishAck(stream: stream, sequence: sequence, isDuplicate: duplicate)
            }
        }

        private mutating func skipSpace() {
            while position < count, unsafe bytes[position] == UInt8(ascii: " ") { position += 1 }
        }

        private mutating func take(_ character: Unicode.Scalar) -> Bool {
            skipSpace()
            guard position < count, unsafe bytes[position] == UInt8(ascii: character) else { return false }
            position += 1
            return true
        }

        /// The bytes between two quotes, if none of them is escaped.
        private mutating func text() -> Range<Int>? {
            guard take("\"") else { return nil }
            let start = position
            while position < count {
                let byte = unsafe bytes[position]
                if byte == UInt8(ascii: "\\") { return nil }
                position += 1
                if byte == UInt8(ascii: "\"") { return start..<(position - 1) }
            }
            return nil
        }

        private mutating func number() -> UInt64? {
            skipSpace()
            var value: UInt64 = 0
            let start = position
            while position < count {
                let digit = unsafe bytes[position] &- UInt8(ascii: "0")
                if digit > 9 { break }
                if position - start == 19 { return nil }
                value = value * 10 + UInt64(digit)
                position += 1
            }
            return position == start ? nil : value
        }

        private mutating func word(_ word: StaticString) -> Bool {
            skipSpace()
            let end = position + word.utf8CodeUnitCount
            guard end <= count, matches(position..<end, word) else { return false }
            position = end
            return true
        }

        private func matches(_ range: Range<Int>, _ word: StaticString) -> Bool {
            guard let start = unsafe bytes.baseAddress else { return false }
            return unsafe memcmp(start + range.lowerBound, word.utf8Start, range.count) == 0
        }
    }
}
