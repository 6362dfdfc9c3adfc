/// Reads JSON text from bytes: builds values, or steps over them where only their place is wanted.
struct JSONScanner {
    private let bytes: [UInt8]
    private let limits: JSONLimits
    private(set) var position = 0

    init(_ bytes: [UInt8], limits: JSONLimits) throws(JSONError) {
        self.bytes = bytes
        self.limits = limits
        skipWhitespace()
        if position == bytes.count { throw fail("the text is empty") }
    }

    func fail(_ reason: String) -> JSONError { JSONError(reason, offset: position) }

    /// Refuses anything but white space after the value.
    mutating func end() throws(JSONError) {
        skipWhitespace()
        if position < bytes.count { throw fail("there is more text after the value") }
    }

    // MARK: values

    mutating func value(depth: Int) throws(JSONError) -> JSON {
        switch try peek() {
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"):
            try literal("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try literal("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try literal("null")
            return .null
        default:
            let range = try number()
            return .number(String(decoding: bytes[range], as: UTF8.self))
        }
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONObject {
        var fields: [JSONObject.Field] = []
        var keys = DistinctKeys()
        try members(depth: depth) { scanner, key throws(JSONError) in
            guard keys.insert(key) else { throw scanner.fail("the key \"\(key)\" stands twice in one object") }
            fields.append(JSONObject.Field(key: key, value: try scanner.value(depth: depth + 1)))
        }
        return JSONObject(distinct: fields)
    }

    private mutating func array(depth: Int) throws(JSONError) -> [JSON] {
        var values: [JSON] = []
        try walk("[", "]", depth: depth) { scanner throws(JSONError) in
            values.append(try scanner.value(depth: depth + 1))
        }
        return values
    }

    // MARK: places

    /// Steps over one value, checking all of it, and gives the bytes it takes.
    mutating func skipValue(depth: Int) throws(JSONError) -> Range<Int> {
        let start: Int
        switch try peek() {
        case UInt8(ascii: "{"):
            start = position
            try walk("{", "}", depth: depth) { scanner throws(JSONError) in
                try scanner.skipKey()
                _ = try scanner.skipValue(depth: depth + 1)
            }
        case UInt8(ascii: "["):
            start = position
            try walk("[", "]", depth: depth) { scanner throws(JSONError) in
                _ = try scanner.skipValue(depth: depth + 1)
            }
        case UInt8(ascii: "\""):
            start = position
            try skipString()
        case UInt8(ascii: "t"), UInt8(ascii: "f"), UInt8(ascii: "n"):
            start = position
            _ = try value(depth: depth)
        default:
            return try number()
        }
        return start..<position
    }

    /// Walks the members of the object at the current place; `member` has to consume the value.
    mutating func members(
        depth: Int,
        _ member: (inout JSONScanner, String) throws(JSONError) -> Void
    ) throws(JSONError) {
        try walk("{", "}", depth: depth) { scanner throws(JSONError) in
            guard try scanner.peek() == UInt8(ascii: "\"") else { throw scanner.fail("expected a key in quotes") }
            let start = scanner.position
            let key = try scanner.string()
            try scanner.colon(after: start)
            try member(&scanner, key)
        }
    }

    /// Steps over a key and its colon.
    private mutating func skipKey() throws(JSONError) {
        guard try peek() == UInt8(ascii: "\"") else { throw fail("expected a key in quotes") }
        let start = position
        try skipString()
        try colon(after: start)
    }

    /// - Parameter start: where the key begins, which ends here.
    private mutating func colon(after start: Int) throws(JSONError) {
        let end = position
        guard try peek() == UInt8(ascii: ":") else {
            throw fail("expected ':' after the key \(String(decoding: bytes[start..<end], as: UTF8.self))")
        }
        position += 1
    }

    /// Walks what stands between two brackets; `element` has to consume one of the parts.
    private mutating func walk(
        _ opening: Unicode.Scalar,
        _ closing: Unicode.Scalar,
        depth: Int,
        _ element: (inout JSONScanner) throws(JSONError) -> Void
    ) throws(JSONError) {
        try open(opening, depth: depth)
        if try peek() == UInt8(ascii: closing) {
            position += 1
            return
        }
        var count = 0
        while true {
            try element(&self)
            count += 1
            if try closes(closing, count: count) { return }
        }
    }

    private mutating func open(_ bracket: Unicode.Scalar, depth: Int) throws(JSONError) {
        guard try peek() == UInt8(ascii: bracket) else { throw fail("expected '\(bracket)'") }
        guard depth < limits.depth else { throw fail("nested deeper than \(limits.depth) levels") }
        position += 1
    }

    private mutating func closes(_ bracket: Unicode.Scalar, count: Int) throws(JSONError) -> Bool {
        guard count <= limits.elements else { throw fail("more than \(limits.elements) elements in one container") }
        let byte = try peek()
        position += 1
        if byte == UInt8(ascii: bracket) { return true }
        if byte == UInt8(ascii: ",") { return false }
        position -= 1
        throw fail("expected ',' or '\(bracket)'")
    }

    // MARK: tokens

    private mutating func skipWhitespace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    /// The next byte that is not white space.
    private mutating func peek() throws(JSONError) -> UInt8 {
        skipWhitespace()
        guard position < bytes.count else { throw fail("the text ends too early") }
        return bytes[position]
    }

    private mutating func literal(_ word: StaticString) throws(JSONError) {
        let expected = "\(word)".utf8
        guard bytes[position...].starts(with: expected) else { throw fail("expected \(word)") }
        position += expected.count
    }

    private mutating func number() throws(JSONError) -> Range<Int> {
        let start = position
        if byte(is: "-") { position += 1 }
        if byte(is: "0") {
            position += 1
        } else {
            guard digits() > 0 else {
                position = start
                throw fail("expected a value")
            }
        }
        if byte(is: ".") {
            position += 1
            guard digits() > 0 else { throw fail("expected digits after the decimal point") }
        }
        if byte(is: "e") || byte(is: "E") {
            position += 1
            if byte(is: "+") || byte(is: "-") { position += 1 }
            guard digits() > 0 else { throw fail("expected digits in the exponent") }
        }
        return start..<position
    }

    private func byte(is scalar: Unicode.Scalar) -> Bool {
        position < bytes.count && bytes[position] == UInt8(ascii: scalar)
    }

    private mutating func digits() -> Int {
        let start = position
        while position < bytes.count, bytes[position] >= 0x30, bytes[position] <= 0x39 { position += 1 }
        return position - start
    }

    /// Reads the string at the current place, which must be a quote.
    private mutating func string() throws(JSONError) -> String {
        let open = position
        guard let range = try plainString() else { return try stringWithEscapes(from: open + 1, opened: open) }
        return try utf8(bytes[range], at: range.lowerBound)
    }

    /// Steps over the string at the current place, checking it as ``string()`` does.
    private mutating func skipString() throws(JSONError) {
        let open = position
        guard let range = try plainString() else {
            _ = try stringWithEscapes(from: open + 1, opened: open)
            return
        }
        do {
            _ = try UTF8Span(validating: bytes[range].span)
        } catch {
            throw JSONError("the string is not valid UTF-8", offset: range.lowerBound)
        }
    }

    /// Steps over the string at the current place, if it has no escapes, and gives the place of its bytes; else stops at the
    /// first escape.
    private mutating func plainString() throws(JSONError) -> Range<Int>? {
        let start = position + 1
        var next = start
        while next < bytes.count {
            switch bytes[next] {
            case UInt8(ascii: "\""):
                position = next + 1
                return start..<next
            case UInt8(ascii: "\\"):
                position = next
                return nil
            case 0..<0x20:
                position = next
                throw fail("a control character inside a string must be escaped")
            default:
                next += 1
            }
        }
        throw JSONError("the string is not closed", offset: start - 1)
    }

    private mutating func stringWithEscapes(from start: Int, opened open: Int) throws(JSONError) -> String {
        var buffer = Array(bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            switch byte {
            case UInt8(ascii: "\""):
                let text = try utf8(buffer[...], at: start)
                position += 1
                return text
            case UInt8(ascii: "\\"):
                try escape(into: &buffer)
            case 0..<0x20:
                throw fail("a control character inside a string must be escaped")
            default:
                buffer.append(byte)
                position += 1
            }
        }
        throw JSONError("the string is not closed", offset: open)
    }

    private func utf8(_ slice: ArraySlice<UInt8>, at start: Int) throws(JSONError) -> String {
        do {
            return String(copying: try UTF8Span(validating: slice.span))
        } catch {
            throw JSONError("the string is not valid UTF-8", offset: start)
        }
    }

    private mutating func escape(into buffer: inout [UInt8]) throws(JSONError) {
        guard position + 1 < bytes.count else { throw fail("the text ends inside an escape") }
        let code = bytes[position + 1]
        let plain: UInt8
        switch code {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): plain = code
        case UInt8(ascii: "b"): plain = 0x08
        case UInt8(ascii: "f"): plain = 0x0C
        case UInt8(ascii: "n"): plain = 0x0A
        case UInt8(ascii: "r"): plain = 0x0D
        case UInt8(ascii: "t"): plain = 0x09
        case UInt8(ascii: "u"):
            buffer.append(contentsOf: String(try unicodeEscape()).utf8)
            return
        default: throw fail("unknown escape in a string")
        }
        buffer.append(plain)
        position += 2
    }

    private mutating func unicodeEscape() throws(JSONError) -> Character {
        let first = try hexUnit()
        var code = UInt32(first)
        if (0xD800..<0xDC00).contains(first) {
            guard byte(is: "\\") else { throw fail("half of a surrogate pair") }
            let second = try hexUnit()
            guard (0xDC00..<0xE000).contains(second) else { throw fail("half of a surrogate pair") }
            code = 0x10000 + ((code - 0xD800) << 10) + (UInt32(second) - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw fail("half of a surrogate pair") }
        return Character(scalar)
    }

    /// Reads `\uXXXX` at the current place.
    private mutating func hexUnit() throws(JSONError) -> UInt16 {
        guard position + 6 <= bytes.count, bytes[position + 1] == UInt8(ascii: "u") else {
            throw fail("expected \\u and four hexadecimal digits")
        }
        let digits = bytes[(position + 2)..<(position + 6)]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw fail("expected \\u and four hexadecimal digits") }
        position += 6
        return unit
    }
}

/// The keys of an object so far: a list while they are few, as on the bus they are, since comparing short keys is cheaper
/// than hashing them.
struct DistinctKeys {
    private var few: [String] = []
    private var many: Set<String> = []

    private static let fewest = 32

    /// - Returns: false when the key is there already.
    mutating func insert(_ key: String) -> Bool {
        guard many.isEmpty else { return many.insert(key).inserted }
        guard !few.contains(key) else { return false }
        few.append(key)
        if few.count > Self.fewest { many = Set(few) }
        return true
    }
}
