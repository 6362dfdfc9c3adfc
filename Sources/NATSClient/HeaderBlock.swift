/// Headers as NUL-terminated names and values one after the other, the form that `cnats_publish` takes. Whatever is in
/// it can be sent: names and values are checked as they are added.
struct HeaderBlock {
    private(set) var bytes: [UInt8] = []
    private(set) var count = 0

    init() {}

    init(_ headers: NATSHeaders) throws(NATSError) {
        for field in headers { try add(field.name, field.value) }
    }

    mutating func add(_ headers: NATSHeaders) throws(NATSError) {
        for field in headers { try add(field.name, field.value) }
    }

    /// - Throws: `badHeader` for an empty name, a name with anything but visible ASCII or with a colon, and a value
    ///   with a line break or a NUL. Also for an empty value: libnats 3.4.1 reads the next header in its place.
    mutating func add(_ name: String, _ value: String) throws(NATSError) {
        let goodName = !name.isEmpty && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ":") }
        if !goodName {
            throw NATSError(.badHeader, "header", subject: name, cause: "a name is visible ASCII without a colon")
        }
        if value.isEmpty || value.utf8.contains(where: { $0 == 0 || $0 == 0x0A || $0 == 0x0D }) {
            let cause = "a value may not be empty or hold a line break or a NUL"
            throw NATSError(.badHeader, "header", subject: name, cause: cause)
        }
        append(name.utf8)
        append(value.utf8)
        count += 1
    }

    /// A header with a number; `name` is a good one.
    mutating func add(_ name: StaticString, _ value: UInt64) {
        unsafe bytes.append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        bytes.append(0)
        bytes.append(decimal: value)
        bytes.append(0)
        count += 1
    }

    private mutating func append(_ text: String.UTF8View) {
        bytes.append(contentsOf: text)
        bytes.append(0)
    }
}

extension [UInt8] {
    /// Appends the digits of a number without making a string.
    mutating func append(decimal value: UInt64) { append(value, base: 10) }
    mutating func append(hexadecimal value: UInt64) { append(value, base: 16) }

    private mutating func append(_ value: UInt64, base: UInt64) {
        let start = count
        var rest = value
        repeat {
            let digit = UInt8(rest % base)
            append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
            rest /= base
        } while rest > 0
        self[start...].reverse()
    }
}

/// The subject that answers come back on: one wildcard subscription for all requests of a connection.
struct RequestInbox: Sendable {
    /// Of the requests that are answered there.
    let number = CallbackRegistry.makeNumber()
    private let prefix: [UInt8]
    let wildcard: String

    init() {
        let subject = "_INBOX.\(RandomToken.make())."
        prefix = Array(subject.utf8)
        wildcard = subject + "*"
    }

    func append(replySubjectFor number: UInt64, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: prefix)
        bytes.append(hexadecimal: number)
    }

    /// The number of the request that a message answers.
    func number(of message: RawMessage) -> UInt64? {
        guard let subject = unsafe message.subjectPointer else { return nil }
        var number: UInt64 = 0
        // The subscription lets nothing through that is shorter than the prefix.
        var digit = unsafe subject + prefix.count
        var count = 0
        while unsafe digit.pointee != 0 {
            guard count < 16, let value = Self.value(unsafe UInt8(bitPattern: digit.pointee)) else { return nil }
            number = number << 4 | value
            unsafe digit += 1
            count += 1
        }
        return number
    }

    private static func value(_ digit: UInt8) -> UInt64? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(digit - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(digit - UInt8(ascii: "a") + 10)
        default: nil
        }
    }
}
