import WireJSON

/// A message as a stream holds it.
package struct StoredMessage: Sendable, Equatable {
    package let subject: String
    package let sequence: UInt64
    /// When the server stored it, in nanoseconds since 1970 by the server's clock.
    package let timestamp: Int64
    package let headers: NATSHeaders
    package let payload: [UInt8]

    package init(subject: String, sequence: UInt64, timestamp: Int64, headers: NATSHeaders, payload: [UInt8]) {
        self.subject = subject
        self.sequence = sequence
        self.timestamp = timestamp
        self.headers = headers
        self.payload = payload
    }

    /// The answer of `STREAM.MSG.GET`; nil if a field is missing or cannot be read.
    init?(_ json: JSON?) {
        guard let json, let subject = json["subject"]?.stringValue, let sequence = json["seq"]?.unsignedValue,
            let time = json["time"]?.stringValue, let timestamp = RFC3339.nanoseconds(time),
            let payload = Base64.decode(json["data"]?.stringValue ?? ""),
            let block = Base64.decode(json["hdrs"]?.stringValue ?? "")
        else { return nil }
        let headers = block.isEmpty ? NATSHeaders() : NATSHeaders(block: block)
        guard let headers else { return nil }
        self.init(subject: subject, sequence: sequence, timestamp: timestamp, headers: headers, payload: payload)
    }

    /// The answer of a direct get.
    init?(direct message: NATSMessage) {
        guard let subject = message.headers["Nats-Subject"],
            let sequence = message.headers["Nats-Sequence"].flatMap({ UInt64($0) }),
            let timestamp = message.headers["Nats-Time-Stamp"].flatMap(RFC3339.nanoseconds)
        else { return nil }
        var headers = message.headers
        for name in ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"] { headers[name] = nil }
        self.init(
            subject: subject,
            sequence: sequence,
            timestamp: timestamp,
            headers: headers,
            payload: message.payload
        )
    }
}

/// The form of time in the JetStream API: `2026-01-31T12:00:00.123456789Z`.
package enum RFC3339 {
    /// Nanoseconds since 1970; nil if the text is not a time in UTC or with an offset, or is out of range.
    package static func nanoseconds(_ text: String) -> Int64? {
        let bytes = Array(text.utf8)
        func number(_ start: Int, _ length: Int) -> Int64? {
            guard start + length <= bytes.count else { return nil }
            var value: Int64 = 0
            for byte in bytes[start..<(start + length)] {
                guard byte >= 0x30, byte <= 0x39 else { return nil }
                value = value * 10 + Int64(byte - 0x30)
            }
            return value
        }
        guard bytes.count >= 20, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
            bytes[10] == UInt8(ascii: "T"), bytes[13] == UInt8(ascii: ":"), bytes[16] == UInt8(ascii: ":"),
            let year = number(0, 4), let month = number(5, 2), (1...12).contains(month), let day = number(8, 2),
            let hour = number(11, 2), let minute = number(14, 2), let second = number(17, 2)
        else { return nil }
        var position = 19
        var fraction: Int64 = 0
        if bytes[position] == UInt8(ascii: ".") {
            position += 1
            var scale: Int64 = 100_000_000
            while position < bytes.count, let digit = number(position, 1) {
                fraction += digit * scale
                scale /= 10
                position += 1
            }
        }
        var offset: Int64 = 0
        if position < bytes.count, bytes[position] != UInt8(ascii: "Z") {
            let sign: Int64 = bytes[position] == UInt8(ascii: "-") ? -1 : 1
            guard let hours = number(position + 1, 2), let minutes = number(position + 4, 2) else { return nil }
            offset = sign * (hours * 60 + minutes) * 60
        }
        let seconds = days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? nil : scaled &+ fraction
    }

    /// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that leap days come last.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}

/// The standard Base64 alphabet with padding, as JSON from the server carries bytes.
enum Base64 {
    /// 255 for bytes that are no digits.
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 255, count: 256)
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8
        for (value, digit) in digits.enumerated() { values[Int(digit)] = UInt8(value) }
        return values
    }()

    /// Nil if the text is not Base64.
    static func decode(_ text: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count / 4 * 3)
        var bits: UInt32 = 0
        var count = 0
        var padding = 0
        for digit in text.utf8 {
            if digit == UInt8(ascii: "=") {
                padding += 1
                continue
            }
            let value = values[Int(digit)]
            if value == 255 || padding > 0 { return nil }
            bits = bits << 6 | UInt32(value)
            count += 1
            if count % 4 == 0 {
                bytes.append(UInt8(truncatingIfNeeded: bits >> 16))
                bytes.append(UInt8(truncatingIfNeeded: bits >> 8))
                bytes.append(UInt8(truncatingIfNeeded: bits))
            }
        }
        guard (count + padding) % 4 == 0, padding <= 2 else { return nil }
        if padding == 2 { bytes.append(UInt8(truncatingIfNeeded: bits >> 4)) }
        if padding == 1 {
            bytes.append(UInt8(truncatingIfNeeded: bits >> 10))
            bytes.append(UInt8(truncatingIfNeeded: bits >> 2))
        }
        return bytes
    }
}
