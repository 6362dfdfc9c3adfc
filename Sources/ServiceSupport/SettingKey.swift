import JobModel

/// One key of a program's configuration: its name, what it may hold, what it is when nobody sets it.
///
/// A key is the getter too: `settings[key]` gives its value, parsed and checked when the settings were loaded.
package struct SettingKey<Value: Sendable>: Sendable {
    package let name: String
    /// One line for a person: what the key is for.
    package let help: String
    /// What may stand there, for a person: "a whole number from 1 to 1000".
    package let form: String
    package let defaultValue: Value
    /// The default as a person would write it; empty when there is none.
    package let defaultText: String
    let parse: @Sendable (String) throws(SettingProblem) -> Value

    /// A key of any kind; the kinds below cover most.
    package init(
        _ name: String,
        form: String,
        default defaultValue: Value,
        text defaultText: String,
        help: String,
        parse: @escaping @Sendable (String) throws(SettingProblem) -> Value
    ) {
        self.name = name
        self.help = help
        self.form = form
        self.defaultValue = defaultValue
        self.defaultText = defaultText
        self.parse = parse
    }

    /// The key without its type, for a schema.
    package var declaration: SettingDeclaration {
        let parse = self.parse
        return SettingDeclaration(
            name: name,
            help: help,
            form: form,
            defaultText: defaultText,
            parse: { text throws(SettingProblem) in try parse(text) }
        )
    }
}

/// A ``SettingKey`` whatever its type.
package struct SettingDeclaration: Sendable {
    package let name: String
    package let help: String
    package let form: String
    package let defaultText: String
    let parse: @Sendable (String) throws(SettingProblem) -> any Sendable
}

/// Why a text cannot be a key's value, for a person; where it came from is added by the loader.
package struct SettingProblem: Error, Equatable {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
}

// MARK: kinds

extension SettingKey where Value == String {
    /// A text; `check` gives the reason why one is not acceptable, or nil.
    package static func text(
        _ name: String,
        default defaultValue: String = "",
        form: String = "text",
        help: String,
        check: @escaping @Sendable (String) -> String? = { _ in nil }
    ) -> SettingKey {
        SettingKey(name, form: form, default: defaultValue, text: defaultValue, help: help) {
            text throws(SettingProblem) in
            if let problem = check(text) { throw SettingProblem("\(quoted(text)) \(problem)") }
            return text
        }
    }

    /// A path that always has a value.
    package static func path(_ name: String, default defaultValue: String, help: String) -> SettingKey {
        SettingKey(name, form: "a path", default: defaultValue, text: defaultValue, help: help) {
            text throws(SettingProblem) in try checkedPath(text)
        }
    }
}

extension SettingKey where Value == String? {
    /// A text that may be missing.
    package static func optionalText(
        _ name: String,
        form: String = "text",
        help: String,
        check: @escaping @Sendable (String) -> String? = { _ in nil }
    ) -> SettingKey {
        SettingKey(name, form: form, default: nil, text: "", help: help) { text throws(SettingProblem) in
            if let problem = check(text) { throw SettingProblem("\(quoted(text)) \(problem)") }
            return text
        }
    }

    /// A path that may be missing.
    package static func optionalPath(_ name: String, help: String) -> SettingKey {
        SettingKey(name, form: "a path", default: nil, text: "", help: help) { text throws(SettingProblem) in
            try checkedPath(text)
        }
    }
}

extension SettingKey where Value == Int {
    package static func wholeNumber(
        _ name: String,
        default defaultValue: Int,
        in range: ClosedRange<Int>,
        help: String
    ) -> SettingKey {
        let form = "a whole number from \(range.lowerBound) to \(range.upperBound)"
        return SettingKey(name, form: form, default: defaultValue, text: "\(defaultValue)", help: help) {
            text throws(SettingProblem) in
            guard let number = Int(text), range.contains(number) else {
                throw SettingProblem("\(quoted(text)) is not \(form)")
            }
            return number
        }
    }
}

extension SettingKey where Value == Double {
    /// Seconds with fractions; see ``Settings/duration(_:)``.
    package static func seconds(
        _ name: String,
        default defaultValue: Double,
        in range: ClosedRange<Double>,
        help: String
    ) -> SettingKey {
        number(name, default: defaultValue, in: range, unit: "seconds", help: help)
    }

    /// A number with fractions.
    /// - Parameter unit: what it counts, in the plural: "seconds", "degrees".
    package static func number(
        _ name: String,
        default defaultValue: Double,
        in range: ClosedRange<Double>,
        unit: String,
        help: String
    ) -> SettingKey {
        let form = "\(plain(range.lowerBound)) to \(plain(range.upperBound)) \(unit)"
        return SettingKey(name, form: form, default: defaultValue, text: plain(defaultValue), help: help) {
            text throws(SettingProblem) in
            guard let number = Double(text), range.contains(number) else {
                throw SettingProblem("\(quoted(text)) is not \(form)")
            }
            return number
        }
    }
}

extension SettingKey where Value == Double? {
    /// A number with fractions that may be missing.
    package static func optionalNumber(
        _ name: String,
        in range: ClosedRange<Double>,
        unit: String,
        help: String
    ) -> SettingKey {
        let number = SettingKey<Double>.number(name, default: range.lowerBound, in: range, unit: unit, help: help)
        return SettingKey(name, form: number.form, default: nil, text: "", help: help) { text throws(SettingProblem) in
            try number.parse(text)
        }
    }
}

extension SettingKey where Value == Bool {
    package static func yesNo(_ name: String, default defaultValue: Bool, help: String) -> SettingKey {
        let text = defaultValue ? "yes" : "no"
        return SettingKey(name, form: "yes or no", default: defaultValue, text: text, help: help) {
            text throws(SettingProblem) in
            switch text.lowercased() {
            case "yes", "true", "on", "1": return true
            case "no", "false", "off", "0": return false
            default: throw SettingProblem("\(quoted(text)) is neither yes nor no")
            }
        }
    }
}

extension SettingKey where Value == [String] {
    /// Words between spaces or commas; `check` gives the reason why one is not acceptable, or nil.
    package static func words(
        _ name: String,
        default defaultValue: [String] = [],
        help: String,
        check: @escaping @Sendable (String) -> String? = { _ in nil }
    ) -> SettingKey {
        let form = "words between spaces or commas"
        let defaultText = defaultValue.joined(separator: " ")
        return SettingKey(name, form: form, default: defaultValue, text: defaultText, help: help) {
            text throws(SettingProblem) in
            let words = text.split { $0 == " " || $0 == "," || $0 == "\t" || $0 == "\n" }.map(String.init)
            for word in words {
                if let problem = check(word) { throw SettingProblem("\(quoted(word)) \(problem)") }
            }
            return words
        }
    }
}

extension SettingKey where Value == [ServerURL] {
    /// One or more addresses of NATS servers between commas.
    package static func serverURLs(_ name: String, default defaultValue: [ServerURL], help: String) -> SettingKey {
        let form = "addresses such as nats://host:4222, between commas"
        let defaultText = defaultValue.map(\.description).joined(separator: ",")
        return SettingKey(name, form: form, default: defaultValue, text: defaultText, help: help) {
            text throws(SettingProblem) in
            var urls: [ServerURL] = []
            for part in text.split(separator: ",") { urls.append(try ServerURL(trimmed(part))) }
            guard !urls.isEmpty else { throw SettingProblem("\(quoted(text)) holds no address; it takes \(form)") }
            return urls
        }
    }
}

/// The text without the spaces around it.
private func trimmed(_ text: Substring) -> String {
    var text = text
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
}

/// A number as a person writes it: 15, not 15.0.
private func plain(_ number: Double) -> String {
    Int(exactly: number).map(String.init) ?? "\(number)"
}

private func checkedPath(_ text: String) throws(SettingProblem) -> String {
    guard !text.utf8.contains(0), text.utf8.count < 4096 else { throw SettingProblem("\(quoted(text)) is not a path") }
    return text
}

/// A value for a message to a person: in quotes, shortened, control characters replaced, passwords masked.
package func quoted(_ text: String) -> String {
    let masked = Secrets.masked(text).unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? "\u{FFFD}" : $0 }
    let short = masked.prefix(60)
    var view = String.UnicodeScalarView()
    view.append(contentsOf: short)
    return "\"\(String(view))\(masked.count > short.count ? "…" : "")\""
}
