/// The fields of a JSON object, each as the bytes it was written with.
///
/// A program that rewrites a record reads the fields it knows and writes the others back untouched, whatever a
/// newer version put into them. The whole text is checked; nothing below the first level is built.
package struct JSONFields: Sendable {
    package struct Field: Sendable {
        package let key: String
        /// The bytes of the value, white space around it left out.
        package let raw: ArraySlice<UInt8>
    }

    package let fields: [Field]

    /// Splits one complete JSON object. Repeated keys are refused.
    package init(parsing bytes: [UInt8], limits: JSONLimits = .standard) throws(JSONError) {
        var scanner = try JSONScanner(bytes, limits: limits)
        var fields: [Field] = []
        var keys = DistinctKeys()
        try scanner.members(depth: 0) { scanner, key throws(JSONError) in
            guard keys.insert(key) else { throw scanner.fail("the key \"\(key)\" stands twice in one object") }
            fields.append(Field(key: key, raw: bytes[try scanner.skipValue(depth: 1)]))
        }
        try scanner.end()
        self.fields = fields
    }

    /// The parsed value of one field, nil if it is missing.
    package func value(_ key: String, limits: JSONLimits = .standard) throws(JSONError) -> JSON? {
        guard let raw = raw(key) else { return nil }
        if let plain = Self.plain(raw) { return plain }
        return try JSON(parsing: Array(raw), limits: limits)
    }

    /// A number, or a string without escapes, which most values are. The bytes were checked with the whole text.
    private static func plain(_ raw: ArraySlice<UInt8>) -> JSON? {
        guard let first = raw.first else { return nil }
        return switch first {
        case UInt8(ascii: "\"") where !raw.contains(UInt8(ascii: "\\")):
            .string(String(decoding: raw.dropFirst().dropLast(), as: UTF8.self))
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"): .number(String(decoding: raw, as: UTF8.self))
        default: nil
        }
    }

    /// The bytes of one field's value, nil if it is missing.
    package func raw(_ key: String) -> ArraySlice<UInt8>? {
        // Texts of different lengths are told apart sooner than by comparing them.
        let length = key.utf8.count
        for field in fields where field.key.utf8.count == length && field.key == key { return field.raw }
        return nil
    }
}
