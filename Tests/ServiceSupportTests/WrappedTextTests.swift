import Testing

@testable import ServiceSupport

@Suite("Text in lines")
struct WrappedTextTests {
    @Test(arguments: [
        ("", 10, [""]), ("one two", 7, ["one two"]), ("one two", 6, ["one", "two"]),
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]), ("a  b", 10, ["a b"]), ("ab", 1, ["a", "b"]),
    ])
    func textIsBrokenBetweenWords(_ text: String, _ width: Int, _ lines: [String]) {
        #expect(WrappedText.lines(text, width: width) == lines)
    }

    @Test(arguments: [
        ("a b c", 80, ["> a b c"]), ("", 80, ["> "]), ("aaa bbb ccc", 7, ["> aaa", "  bbb", "  ccc"]),
        ("abcdefghij", 6, ["> abcd", "  efgh", "  ij"]), ("abc de", 2, ["> abc", "  de"]),
    ])
    func theFirstLineMayBeginOtherwiseThanTheRest(_ text: String, _ width: Int, _ lines: [String]) {
        #expect(WrappedText.lines(text, width: width, first: "> ", rest: "  ") == lines)
    }

    @Test func theKeysOfAProgramFitATerminal() {
        let key = SettingKey.text(
            "A_RATHER_LONG_KEY",
            default: "",
            help: "what it does, told at such length that it does not fit into one line of a terminal of this width"
        )
        let lines = SettingsSchema(defaultFile: nil, fileVariable: nil, keys: [key.declaration]).helpText()
            .split(separator: "\n")
        #expect(lines.count == 2)
        #expect(lines.allSatisfy { $0.count <= 80 })
        #expect(lines[1].hasPrefix(String(repeating: " ", count: 21) + "it does not") || lines[1].hasPrefix("     "))
    }
}
