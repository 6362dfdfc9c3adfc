/// A JSON value as it travels on the bus.
///
/// Numbers keep their text, so that a value that was only passed through is written back exactly as it came
/// (a 64-bit identifier does not lose digits in a `Double`). Objects keep the order of their fields.
package enum JSON: Sendable, Equatable {
    case null
    case bool(Bool)
    /// The number as it was written; always a valid JSON number.
    case number(String)
    case string(String)
    case array([JSON])
    case object(JSONObject)

    /// Parses one complete JSON text. See ``JSONLimits`` for what is refused besides malformed text.
    package init(parsing bytes: [UInt8], limits: JSONLimits = .standard) throws(JSONError) {
        var scanner = try JSONScanner(bytes, limits: limits)
        self = try scanner.value(depth: 0)
        try scanner.end()
    }

    /// The value as compact UTF-8 text.
    package func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.bytes
    }

    /// The field of an object; nil for a missing field and for anything that is not an object.
    package subscript(key: String) -> JSON? {
        guard case .object(let object) = self else { return nil }
        return object[key]
    }
}

extension JSON {
    package var isNull: Bool { self == .null }

    package var boolValue: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    package var stringValue: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    package var arrayValue: [JSON]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    package var objectValue: JSONObject? {
        guard case .object(let value) = self else { return nil }
        return value
    }

    /// The number if it is a whole one that an `Int64` holds exactly (`30`, `30.0` and `3e1` are), else nil.
    package var intValue: Int64? {
        guard case .number(let text) = self else { return nil }
        if let whole = Int64(text) { return whole }
        guard let double = Double(text) else { return nil }
        return Int64(exactly: double)
    }

    /// The number as an unsigned 64-bit value, for stream sequences.
    package var unsignedValue: UInt64? {
        guard case .number(let text) = self else { return nil }
        return UInt64(text)
    }

    /// The number as a finite `Double`, else nil.
    package var doubleValue: Double? {
        guard case .number(let text) = self, let double = Double(text), double.isFinite else { return nil }
        return double
    }

    /// What kind of value this is, in words for a person.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    package static func int(_ value: some BinaryInteger) -> JSON { .number(String(value)) }

    /// A finite number; a NaN or an infinity, which JSON cannot hold, becomes null.
    package static func double(_ value: Double) -> JSON {
        guard value.isFinite else { return .null }
        return .number(JSONWriter.text(of: value))
    }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .int(value) }
    package init(floatLiteral value: Double) { self = .double(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSON...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSON)...) { self = .object(JSONObject(elements)) }
    package init(nilLiteral: ()) { self = .null }
}

/// The fields of a JSON object in their order.
///
/// Objects on the bus are small, so fields are looked up one by one; the parser refuses a repeated key, and a
/// builder that sets a key twice keeps the last value.
package struct JSONObject: Sendable, Equatable, Sequence, ExpressibleByDictionaryLiteral {
    package struct Field: Sendable, Equatable {
        package var key: String
        package var value: JSON
    }

    package private(set) var fields: [Field]

    package init() { fields = [] }

    package init(_ elements: [(String, JSON)]) {
        fields = elements.map { Field(key: $0.0, value: $0.1) }
    }

    package init(dictionaryLiteral elements: (String, JSON)...) { self.init(elements) }

    /// Fields that are known to have distinct keys, as the parser found them.
    init(distinct fields: [Field]) { self.fields = fields }

    /// The value of a key; setting nil removes the field, setting a new key appends it.
    package subscript(key: String) -> JSON? {
        get { fields.first { $0.key == key }?.value }
        set {
            let index = fields.firstIndex { $0.key == key }
            switch (index, newValue) {
            case (let index?, let value?): fields[index].value = value
            case (let index?, nil): fields.remove(at: index)
            case (nil, let value?): fields.append(Field(key: key, value: value))
            case (nil, nil): break
            }
        }
    }

    package var isEmpty: Bool { fields.isEmpty }
    package var count: Int { fields.count }
    package func makeIterator() -> IndexingIterator<[Field]> { fields.makeIterator() }
}

/// What a parser refuses although it is well-formed JSON, so that no message costs more than its length.
package struct JSONLimits: Sendable {
    /// Deepest nesting of arrays and objects.
    package var depth: Int
    /// Most fields of one object and most elements of one array.
    package var elements: Int

    package init(depth: Int, elements: Int) {
        self.depth = depth
        self.elements = elements
    }

    /// 64 levels, 100,000 elements: far above any message of the protocol.
    package static let standard = JSONLimits(depth: 64, elements: 100_000)
}

/// Why a text is not acceptable JSON, and at which byte.
package struct JSONError: Error, Equatable, CustomStringConvertible {
    /// What is wrong, for a person.
    package var reason: String
    /// The offset of the first byte that is wrong, counted from 0.
    package var offset: Int

    package init(_ reason: String, offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String { "not valid JSON: \(reason) (at byte \(offset))" }
}
