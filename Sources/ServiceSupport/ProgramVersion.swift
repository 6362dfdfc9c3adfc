/// The version of all our programs; they are built and installed together.
package enum ProgramVersion {
    package static let text = "0.1.0"
}
