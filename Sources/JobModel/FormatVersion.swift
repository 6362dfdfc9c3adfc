import WireJSON

/// The version of the records and messages on the bus: `v` on the wire, 1 where it is missing.
///
/// It goes up only when a program of the version before would do something wrong with what it reads. A new field that
/// such a program may ignore does not need it: programs of different ages share one pool.
package enum FormatVersion {
    /// What this program writes, and the newest that it reads.
    package static let current = 1

    /// Why something of version `v` cannot be read here, for a person; nil when it can.
    package static func problem(in version: JSON?) -> String? {
        guard let version, !version.isNull else { return nil }
        guard let number = version.intValue, number >= 1 else { return "v must be a whole number from 1" }
        guard number > current else { return nil }
        return "its format is version \(number), and this program reads up to version \(current); upgrade this program"
    }

    /// - Parameter expected: what the message should be: "record".
    package static func check(_ version: JSON?, in expected: String) throws(MalformedMessage) {
        if let problem = problem(in: version) { throw MalformedMessage(expected, problem) }
    }
}
