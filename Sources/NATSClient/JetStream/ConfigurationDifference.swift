import WireJSON

/// A setting of a stream or a consumer that the server runs differently from what was asked.
package struct ConfigurationDifference: Sendable, Equatable, CustomStringConvertible {
    /// The path of the field, such as `metadata.owner`.
    package let field: String
    package let asked: JSON
    /// What the server has; nil if it does not know the field.
    package let actual: JSON?

    package var description: String {
        let actual = actual.map { String(decoding: $0.encoded(), as: UTF8.self) } ?? "nothing"
        return "\(field): asked \(String(decoding: asked.encoded(), as: UTF8.self)), the server has \(actual)"
    }

    /// Compares every field that was asked for; fields that only the server has are its defaults and its own business.
    ///
    /// The server leaves fields out that are zero, false or empty, so a missing field equals those.
    static func between(asked: JSON, actual: JSON, path: String = "") -> [ConfigurationDifference] {
        guard let fields = asked.objectValue else { return [] }
        return fields.flatMap { field -> [ConfigurationDifference] in
            let path = path.isEmpty ? field.key : path + "." + field.key
            let actual = actual[field.key]
            if let actual, field.value.objectValue != nil, actual.objectValue != nil {
                return between(asked: field.value, actual: actual, path: path)
            }
            if isSame(field.value, actual ?? .null) { return [] }
            return [ConfigurationDifference(field: path, asked: field.value, actual: actual)]
        }
    }

    private static func isSame(_ asked: JSON, _ actual: JSON) -> Bool {
        if asked == actual || (isEmpty(asked) && isEmpty(actual)) { return true }
        if let asked = asked.intValue, let actual = actual.intValue { return asked == actual }
        if let asked = asked.doubleValue, let actual = actual.doubleValue { return asked == actual }
        if let asked = asked.arrayValue, let actual = actual.arrayValue, asked.count == actual.count {
            return zip(asked, actual).allSatisfy { pair in
                pair.0.objectValue == nil ? isSame(pair.0, pair.1) : between(asked: pair.0, actual: pair.1).isEmpty
            }
        }
        return false
    }

    private static func isEmpty(_ value: JSON) -> Bool {
        switch value {
        case .null: true
        case .bool(let value): !value
        case .number: value.doubleValue == 0
        case .string(let value): value.isEmpty
        case .array(let values): values.isEmpty
        case .object(let values): values.isEmpty
        }
    }
}
