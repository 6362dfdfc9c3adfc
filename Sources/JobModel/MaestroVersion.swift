/// The version of these programs.
package enum MaestroVersion {
    package static let text = "0.1.0"
}
